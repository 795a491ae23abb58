"""rh-match: which processes match the rules?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.text.format import duration, visible

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.report.render import Style
    from rogue_hunter.rules.model import Rule, RuleSet


@run.group("rh-match", """
Examples:
  rh-sample -n 2 | rh-match | jq -c '[.pid, .command, .rule, .reason]'
  rh-sample -n 2 | rh-match | rh-reap --dry-run   what would be terminated
  rh-sample | rh-score | rh-match --tee | rh-metrics --serve 127.0.0.1:9090
  rh-match rules --toml > my-rules.toml           a rule file to start from
  rh-match backtest --since 30d                   what they would have matched
""", invoke_without_command=True)
@click.option("--tee", is_flag=True, help="Print the ticks too, not only the matches.")
@click.option("--no-lifetime", is_flag=True,
              help="Require conditions to be observed for their full duration; ignore lifetime averages.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if anything matched.")
@options.stream_options
@options.rules_options
def command(tee: bool, no_lifetime: bool, exit_code: bool, form: str | None, config: Config, rules: RuleSet) -> int:
    """Read ticks and print a match record for each process that matches a rule; no process is touched.

    A match is printed when it starts, then once a minute.
    """
    from rogue_hunter.rules.matcher import Matcher

    out = run.output()
    ticks, finish = run.read_ticks("rh-match")
    seen: list[int] = []
    counted = run.ProcessCount()
    matcher = Matcher(rules, lifetime=not no_lifetime)
    scored = run.NeedScores(lambda: _no_scores(rules))
    run.write_ticks(chain(ticks, scored, matcher, counted, lambda tick: _told(tick, seen)), out, run.stream_form(form),
                    None if tee else _own)
    if not seen:
        counted.report(matcher.undecided)
    return finish() or (run.FOUND if exit_code and seen else run.OK)


def _own(found: Record) -> bool:
    """True for a record of this command: a match, or an error, which every filter passes on."""
    return found["type"] in ("match", "error")


def _no_scores(rules: RuleSet) -> None:
    """Report the rules that cannot match ticks without scores."""
    names = [rule.name for rule in rules.enabled if {"score_min", "band_min"} & _keys(rule.table)]
    if names:
        run.say(f"the input holds no scores, so {', '.join(names)} cannot match; run it through rh-score")


def _keys(conditions: Any) -> set[str]:
    """The names of all conditions, nested ones too."""
    if isinstance(conditions, dict):
        return set(conditions).union(*map(_keys, conditions.values()))
    return set().union(*map(_keys, conditions)) if isinstance(conditions, (list, tuple)) else set()


def _told(tick: Tick, seen: list[int]) -> Tick:
    """Report the rules that were disabled; note that something matched."""
    for each in tick.records:
        if each["type"] == "error" and each.get("stage") == "rh-match" and "line" not in each:
            run.say(each["message"])
        elif each["type"] == "match" and not seen:
            seen.append(each["pid"])
    return tick


@command.command("rules")
@click.option("--toml", "as_toml", is_flag=True, help="As a rule file, without examples, as a start for your own.")
@options.form_options()
@options.rules_options
def rules_(as_toml: bool, form: str | None, config: Config, rules: RuleSet) -> int:
    """List the rules in force, in the order of evaluation."""
    if as_toml:
        from rogue_hunter.rules.load import rules_toml

        click.echo(rules_toml(rules), nl=False)
        return run.OK
    found = [_rule(rule) for rule in rules.rules]
    return _answer(found, form, lambda look: _rules_text(found, rules, look))


def _rule(rule: Rule) -> Record:
    act = rule.action
    kills = act.type == "kill"
    return record("rule", name=rule.name, priority=rule.priority, enabled=rule.enabled, action=act.type,
                  signal=act.signal if kills else None, timeout_s=act.timeout_s if kills else None,
                  fallback=act.fallback if kills else None, notify=act.notify, conditions=_plain(rule.table),
                  examples=len(rule.examples), source=rule.source)


def _plain(value: Any) -> Any:
    """Conditions as JSON holds them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _rules_text(found: list[Record], rules: RuleSet, look: Style) -> str:
    from rogue_hunter.report.render import table

    rows = [[visible(r["name"]), r["priority"], "yes" if r["enabled"] else "no", r["action"], _words(r["conditions"])]
            for r in found]
    safety = rules.safety
    return (table(["RULE", "PRIORITY", "ENABLED", "ACTION", "CONDITIONS"], rows, look,
                  drop="PRIORITY ENABLED")
            + f"\nnever: {len(safety.whitelist)} programs of the whitelist, pids below "
              f"{safety.least_pid(own_namespace=False)}, other users', ancestors; at most "
              f"{safety.max_per_run} a run, {safety.max_per_rule_per_hour} an hour for each rule\n"
            + f"from {', '.join(visible(source) for source in rules.sources)}\n")


def _words(conditions: Any) -> str:
    if isinstance(conditions, dict):
        return " ".join(f"{key}=" + (f"({_words(value)})" if isinstance(value, (dict, list)) and key in (
            "any", "all", "not") else str(len(value)) if isinstance(value, list) else str(value))
            for key, value in conditions.items())
    return "; ".join(_words(each) for each in conditions)


@command.command("backtest")
@options.db_option()
@click.option("--since", type=options.Moment(), default="30d", show_default=True, metavar="TIME",
              help="Read history from this time on.")
@click.option("--until", type=options.Moment(), metavar="TIME", help="Up to this time (default: now).")
@options.form_options()
@options.rules_options
def backtest_(db: Path | None, since: float, until: float | None, form: str | None, config: Config,
              rules: RuleSet) -> int:
    """Print what the rules would have matched in recorded history: when first, what that would have saved, and the
    regrets: processes that exited or calmed down by themselves, or had a terminal."""
    import sqlite3
    from contextlib import closing

    from rogue_hunter.rules.backtest import backtest, history, summary
    from rogue_hunter.store.database import DatabaseError, open_reader

    until = time.time() if until is None else until
    if since > until:
        raise run.Failure("--since is later than --until", run.USAGE)
    path = options.database_path(db, config)
    try:
        with closing(open_reader(path)) as connection:
            fired = backtest(rules, history(connection, since, until))
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {error}", run.IO_ERROR) from None
    firings = [record("firing", **{k: v for k, v in asdict(firing).items() if v != ""}) for firing in fired]
    sums = [record("backtest", since=round(since, 3), until=round(until, 3), **asdict(each)) for each in summary(fired)]
    return _answer([*firings, *sums], form, lambda look: _backtest_text(firings, sums, look))


def _backtest_text(firings: list[Record], sums: list[Record], look: Style) -> str:
    from rogue_hunter.report.render import table
    from rogue_hunter.report.sentences import moment

    if not firings:
        return "The rules would not have matched any recorded process.\n"
    rows = [[moment(f["ts"], look.now), f["rule"], f["action"], str(f["pid"]), duration(f["cpu_seconds_saved"]),
             f.get("ended", "open"), visible(f["command"]), f.get("regret", "")] for f in firings]
    heads = ["FIRST", "RULE", "ACTION", "PID", "SAVED", "ENDED", "COMMAND", "REGRET"]
    totals = [[s["rule"], str(s["firings"]), str(s["regrets"]), duration(s["cpu_seconds_saved"])] for s in sums]
    return table(heads, rows, look, right="PID SAVED", drop="PID ENDED ACTION REGRET") + "\n" + table(
        ["RULE", "FIRINGS", "REGRETS", "CPU-TIME-SAVED"], totals, look, right="FIRINGS REGRETS CPU-TIME-SAVED")


def _answer(records: list[Record], form: str | None, text: Callable[[Style], str]) -> int:
    from rogue_hunter.report.render import Answer

    return run.print_answer(Answer(records, text), form)


main = run.entry(command)
