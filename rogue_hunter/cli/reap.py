"""rh-reap: terminate the processes that match a rule, and only those."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

import click

from rogue_hunter import paths
from rogue_hunter.commandline import options, run
from rogue_hunter.stream.pipeline import chain, gathered
from rogue_hunter.stream.tick import Record, Row, Tick, record
from rogue_hunter.text.format import path_text, visible

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.reaper.candidate import Candidate
    from rogue_hunter.reaper.notify import Notifier
    from rogue_hunter.reaper.process import Machine, Stop
    from rogue_hunter.rules.matcher import Matcher
    from rogue_hunter.rules.model import RuleSet

Ask: TypeAlias = "Callable[[Sequence[Candidate]], bool]"

PID_MAX = 1 << 22

TOGETHER_S = 0.2
"""The matches of a tick are written at once; when nothing follows for so long, there are no more of them."""


@run.group("rh-reap", """
Examples:
  rh-sample -n 2 | rh-match | rh-reap --dry-run   what would be terminated
  rh-sample -n 2 | rh-match | rh-reap             asks on the terminal first
  rh-reap --all --dry-run                         the same, without a pipe
  rh-reap --pid 12345                             protections stay in force
  rh-reap --command firefox                       choose among those of a name
  rh-reap --pick --remedy stop                    choose, and stop for 30 s
  rh-reap --verify                                was the audit file changed?
  rh-reap prove --pid 4711 --victim 812           does stopping it help 812?
""", invoke_without_command=True)
@click.option("--dry-run", is_flag=True, help="Send no signal; print what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. All protections stay in force.")
@click.option("--pid", "pids", type=options.Whole(1, PID_MAX), multiple=True, metavar="PID",
              help="Terminate this process, even if no rule matches; may be repeated. Reads no input.")
@click.option("--command", "text", metavar="TEXT",
              help="Choose among your processes with TEXT in their name or arguments (with --yes: all of them).")
@click.option("--pick", is_flag=True, help="Choose among all your processes, the most CPU first.")
@click.option("--remedy", type=click.Choice(("kill", "renice", "stop", "freeze")), default="kill", show_default=True,
              help="What to do to processes that you name or choose; stop and freeze end after 30 s.")
@click.option("--all", "everything", is_flag=True,
              help="Match all processes now, and terminate those that match. Reads no input.")
@click.option("--verify", is_flag=True, help="Check the chain of the audit file; exit 1 if it was changed.")
@click.option("--rearm", is_flag=True, help="Re-enable automatic kills after a failure, once you have checked.")
@click.option("--tee", is_flag=True, help="Print the input too, not only the actions.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors on standard error.")
@options.stream_options
@options.db_option("Also store the actions in this database (default: the user's, if it exists).")
@options.rules_options
def command(dry_run: bool, yes: bool, pids: tuple[int, ...], text: str | None, pick: bool, remedy: str,
            everything: bool, verify: bool, rearm: bool, tee: bool, quiet: bool, form: str | None, db: Path | None,
            config: Config, rules: RuleSet) -> int:
    """Read match records, terminate their processes, and print an action record for each: SIGTERM, 5 seconds, SIGKILL.

    Asks on the terminal first, unless --yes. No signal is sent before its audit entry is on disk.
    """
    from rogue_hunter.reaper.audit import audit_log
    from rogue_hunter.reaper.confirm import confirm_on_tty
    from rogue_hunter.reaper.notify import Notifier, summary
    from rogue_hunter.reaper.run import Setup, exit_code, here
    from rogue_hunter.reaper.stage import Reap

    run.exclude((sum(map(bool, (pids, text, pick, everything, verify, rearm))) > 1,
                 "--pid, --command, --pick, --all, --verify and --rearm exclude each other"),
                (text is not None and not text.strip(), "--command: the text is empty; --pick shows all processes"))
    if verify:
        return _verify(config, rules, form)
    if rearm:
        return _rearm()
    form, out = run.stream_form(form), run.output()
    if rules.settings.dry_run and not dry_run:
        run.say("a dry run: daemon.dry_run is true in the rules")
    notifier = Notifier(rules.settings)
    interrupts = Interrupts()
    setup = Setup(rules, here(), audit_log(config.reap, rules.settings), paths.state_dir(), host=platform.node(),
                  dry_run=dry_run or rules.settings.dry_run,
                  rules_fixed=click.get_current_context().params["config_file"] is not None,
                  confirm=None if yes else interrupts.asking(confirm_on_tty),
                  report=lambda action: _tell(action, notifier, rules, quiet or form == "table"))
    finish: Callable[[], int] = lambda: run.OK  # noqa: E731
    counted: run.ProcessCount | None = None
    matcher: Matcher | None = None
    ticks: Iterable[Tick]
    if text or pick:
        chosen = _chosen(text or "", config, yes and not pick)
        if not chosen:
            return run.FOUND
        pids = tuple(row["pid"] for row in chosen)
        ticks, finish = _named(pids, setup.machine, remedy, {row["pid"]: row["start_ticks"] for row in chosen})
    elif pids:
        ticks, finish = _named(pids, setup.machine, remedy)
    elif everything:
        from rogue_hunter.rules.matcher import Matcher, scan

        counted, matcher = run.ProcessCount(), Matcher(rules, patterns=setup.patterns)
        ticks = chain(scan(config, matcher), counted)
    elif os.isatty(0):
        raise run.Failure("reads matches from standard input: rh-sample -n 2 | rh-match | rh-reap; or give --all or "
                          "--pid PID", run.USAGE)
    else:
        ticks, finish = run.read_ticks("rh-reap")
        ticks = gathered(ticks, TOGETHER_S)
    from rogue_hunter.store.writer import StoreActions

    with interrupts.handled(setup.stop.set):
        kept = StoreActions(options.database_path(db, config), config.store, run.say, must=db is not None,
                            run=setup.run)
        done = chain(interrupts.reading(ticks), Reap(setup), kept)
        run.write_ticks(_until(setup.stop, done), out, form, None if tee else lambda found: found["type"] != "match")
    actions = kept.actions
    if actions and not quiet:
        run.say(summary(actions))
    elif counted is not None and not quiet:
        counted.report(matcher.undecided if matcher is not None else 0)
    return interrupts.code or finish() or exit_code(actions)


@command.command("prove")
@click.option("--pid", "suspect", type=options.Whole(1, PID_MAX), required=True, metavar="PID",
              help="The suspect: it is stopped for 0.2 s in each trial.")
@click.option("--victim", type=options.Whole(1, PID_MAX), required=True, metavar="PID",
              help="The process that waits: only looked at.")
@click.option("--trials", type=options.Whole(8, 100), default=10, show_default=True, metavar="N",
              help="How often the suspect is stopped.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. All protections stay in force.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors on standard error.")
@options.rules_options
def prove_(suspect: int, victim: int, trials: int, yes: bool, quiet: bool, config: Config, rules: RuleSet) -> int:
    """Prove by experiment whether a process makes another one wait, and print a proof record.

    The suspect is stopped for 0.2 s several times, in random order with stretches in which it runs; a permutation test
    decides: proven, refuted, or not_proven. Every protection of rh-reap applies to the suspect; each experiment is in
    the audit file, at most 5 an hour. Another process continues the suspect even if this command is killed. Exit 1
    unless it is proven.
    """
    from rogue_hunter.reaper.audit import audit_log
    from rogue_hunter.reaper.confirm import confirm_on_tty, proof_question
    from rogue_hunter.reaper.experiment import Experiment, prove
    from rogue_hunter.reaper.run import Setup, here
    from rogue_hunter.stream import wire

    interrupts = Interrupts()

    def ask(candidates: Sequence[Candidate]) -> bool:
        return confirm_on_tty(candidates, words=proof_question)

    setup = Setup(rules, here(), audit_log(config.reap, rules.settings), paths.state_dir(), host=platform.node(),
                  confirm=None if yes else interrupts.asking(ask))
    with interrupts.handled(setup.stop.set):
        proof = prove(suspect, victim, setup, Experiment(trials=trials))
    run.emit(wire.dumps(proof) + b"\n")
    if not quiet:
        run.say(f"{proof['verdict'].replace('_', ' ')}: {proof['detail']}")
    return interrupts.code or (run.OK if proof["verdict"] == "proven" else run.FOUND)


class Interrupts:
    """SIGINT and SIGTERM. While the command waits for input or an answer, a signal ends it at once; while processes are
    being terminated, it ends only the wait for them, and their actions are still printed. `code` is the exit code that
    follows, 0 if no signal came."""

    def __init__(self) -> None:
        self.code = 0
        self._waiting = False

    @contextlib.contextmanager
    def handled(self, stop: Callable[[], None]) -> Iterator[None]:
        """Handle them in the body, on the main thread; `stop` ends a wait for processes."""
        def handler(number: int, _frame: FrameType | None) -> None:
            if not self._waiting:
                self.code = 128 + number
                stop()
            elif number == signal.SIGINT:
                raise KeyboardInterrupt
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)

    @contextlib.contextmanager
    def _idle(self) -> Iterator[None]:
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def reading(self, ticks: Iterable[Tick]) -> Iterator[Tick]:
        """The same ticks; until the next one has come nothing is under way."""
        source = iter(ticks)
        while True:
            with self._idle():
                tick = next(source, None)
            if tick is None:
                return
            yield tick

    def asking(self, ask: Ask) -> Ask:
        """The same question; until the answer nothing is under way."""
        def asked(candidates: Sequence[Candidate]) -> bool:
            with self._idle():
                return ask(candidates)

        return asked


def _until(stop: Stop, ticks: Iterator[Tick]) -> Iterator[Tick]:
    """The ticks, up to the one during which `stop` was set."""
    for tick in ticks:
        yield tick
        if stop:
            return


def _tell(action: Record, notifier: Notifier, rules: RuleSet, quiet: bool) -> None:
    from rogue_hunter.reaper.notify import sentence

    if not quiet:
        run.say(sentence(action))
    if not action["dry_run"]:
        notifier.action(action, rules)


def _chosen(text: str, config: Config, everything: bool) -> list[Row]:
    """The processes that a person chose, or all with the text."""
    from rogue_hunter.reaper.confirm import pick_on_tty
    from rogue_hunter.rules.matcher import named, scan

    rows = named(scan(config), text, os.getuid())
    if not rows:
        run.say(f"you have no process with {text!r} in its name or arguments" if text else "you have no process")
        return []
    return rows if everything else pick_on_tty(rows)


def _named(pids: Sequence[int], machine: Machine, remedy: str = "kill", starts: Mapping[int, int] | None = None,
           ) -> tuple[Iterator[Tick], Callable[[], int]]:
    """The processes that a person named, as matches; and the exit code for those that could not be looked at. `starts`
    holds the start time of those that were chosen from a list."""
    from rogue_hunter.reaper.candidate import manual
    from rogue_hunter.reaper.process import Gone, Unreadable

    matches, missing = [], []
    for pid in dict.fromkeys(pids):
        try:
            match = manual(machine, pid, time.time(), remedy)
            if starts is not None and match["start_ticks"] != starts[pid]:
                raise Gone
            matches.append(match)
        except Gone:
            run.say(f"{pid}: no such process")
            missing.append(pid)
        except Unreadable as error:
            run.say(f"{pid}: not killed: {error}")
            missing.append(pid)
    return iter([Tick(records=matches)]), lambda: run.FOUND if missing else run.OK


def _verify(config: Config, rules: RuleSet, form: str | None) -> int:
    from rogue_hunter.reaper.audit import audit_log
    from rogue_hunter.report.render import Answer

    log = audit_log(config.reap, rules.settings)
    verdict = log.verify()
    damages = [{"file": d.file, "line": d.line, "text": d.text} for d in verdict.damages]
    file = path_text(log.path)
    found = record("audit_check", ts=round(time.time(), 3), file=file, lines=verdict.lines, whole=not damages,
                   damages=damages or None)
    words = f"{len(damages)} damages" if damages else "as it was written" if verdict.lines else "empty"
    run.print_answer(Answer([found], lambda _: f"{visible(file)}: {verdict.lines} lines, {words}\n"),
                     run.stream_form(form))
    for damage in damages:
        run.say(f"{damage['file']}, line {damage['line']}: {damage['text']}")
    if not verdict.lines and not damages:
        run.say(f"{log.path}: no entries yet")
    return run.FOUND if damages else run.OK


def _rearm() -> int:
    from rogue_hunter.reaper.guards import disarmed, rearm

    why = disarmed(paths.state_dir())
    lifted = rearm(paths.state_dir())
    run.say(f"automatic kills are enabled again; they were disabled because {why}" if lifted
               else "automatic kills were not disabled")
    return run.OK


main = run.entry(command)
