"""rh-forensics: capture evidence of a stall, and read spindump reports."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.schema.capture import RECORDS
from rogue_hunter.schema.field import BANDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config

LOOK_S = 0.2
"""Interval at which a capture is checked while no input comes."""

_OWN = frozenset({*RECORDS, "error"})
"""Records of captures, and errors of input lines."""
FORMS = ("table", "json", "ndjson")
_forms = options.form_options(*FORMS, table="Text for people (default on a terminal).")
_files = click.argument("files", nargs=-1, required=True, metavar="FILE|DIRECTORY|- ...")


@run.group("rh-forensics", """
Examples:
  rh-sample | rh-score | rh-track | rh-forensics > captures.ndjson
  rh-forensics blame spindump.txt            which process blocks which
  rh-forensics parse spindump.txt | jq 'select(.cpu_seconds > 1)'
  rh-forensics capture 4711                  capture a process now
  rh-forensics capture 4711 --ndjson | rh-forensics blame -
  rh-forensics profile --pid 4711 --for 5s   where its CPU time goes
""", invoke_without_command=True)
@click.option("--tee", is_flag=True, help="Also print all of the input, not only the captures.")
@click.option("--band", type=click.Choice(BANDS[1:]),
              help="Capture from this band on (default: bands.forensics of the configuration).")
@options.stream_options
@options.config_option
@click.pass_context
def command(context: click.Context, tee: bool, band: str | None, form: str | None, config: Config) -> int:
    """Read event and pause records, capture evidence of this machine for the severe ones, and print it.

    Captures are made in another process, one at a time, and limited in number; skipped requests are reported.
    """
    if context.invoked_subcommand is not None:
        return run.OK
    from rogue_hunter.capture.stage import Captures
    from rogue_hunter.capture.worker import CaptureProcess
    from rogue_hunter.host.platform import here
    from rogue_hunter.stream.pipeline import chain, pumped

    # The command always makes captures, also if the configuration disables them for rh-pipe.
    settings = replace(config.forensics, enabled=True)
    out = run.output()
    ticks, finish = run.read_ticks("rh-forensics")
    host = here()
    try:
        boot_id = host.facts().boot_id
    finally:
        host.close()
    with CaptureProcess(settings) as capturer:
        stage = Captures(settings, capturer, boot_id=boot_id, cpu_seconds=lambda: capturer.cpu_seconds,
                         band=band or config.bands_of(config.scoring.model).forensics)
        run.write_ticks(chain(pumped(ticks, LOOK_S), stage), out, run.stream_form(form),
                        None if tee else lambda found: found["type"] in _OWN)
    return finish()


# -- parse -------------------------------------------------------------------------------------------------------------

@command.command("parse")
@click.option("--frames-of", "pids", type=int, multiple=True, metavar="PID",
              help="Keep stacks of this process only; repeatable (default: of all main threads).")
@_forms
@_files
def parse(files: tuple[str, ...], pids: tuple[int, ...], form: str | None) -> int:
    """Turn reports into records: spindump and sample as text, resource limits, memory kills, crashes, panics, resets,
    the sleep log and the log of macOS, a journal, a kernel log. Of a directory, every report is read, newest first.

    Exit 65 for another format or a truncated file; the readable part is printed.
    """
    from rogue_hunter.capture.reports.collect import placed, timeline
    from rogue_hunter.report.capture_text import report_text, timeline_text
    from rogue_hunter.report.render import Answer

    form = run.output_form(form, FORMS)
    code, out = run.OK, run.output()
    comma = b"[\n"
    named, several = _named(files), len(files) > 1 or any(map(os.path.isdir, files))
    lines: list[Record] = []
    for file in named:
        kept: list[Record] = []
        try:
            for each in _read(file, frozenset(pids)):
                if each["type"] == "error":
                    code = code or run.BAD_INPUT
                if form == "ndjson":
                    out.write(wire.dumps(each) + b"\n")
                elif form == "json":
                    out.write(comma + wire.dumps(each))
                    comma = b",\n"
                else:
                    kept.append(each)
        except PermissionError as error:
            if file in files:
                raise
            run.say(f"{file}: {error.strerror}")  # the other reports of the directory are read
            code = run.IO_ERROR
        if form == "table" and several:
            lines += timeline(placed(each, Path(file)) if file != "-" else each for each in kept)
        elif form == "table":
            run.print_answer(Answer(kept, partial(report_text, kept)), form)
    if form == "table" and several:
        lines.sort(key=lambda line: -float(line["ts"]))
        run.print_answer(Answer(lines, partial(timeline_text, lines)), form)
    if form == "json":
        out.write(b"\n]\n" if comma == b",\n" else b"[]\n")
    out.flush()
    return code


def _named(files: Iterable[str]) -> Iterator[str]:
    """The files; for a directory the files in it, newest first."""
    from rogue_hunter.capture.reports.collect import newest_first

    for file in files:
        if file != "-" and os.path.isdir(file):
            yield from (str(path) for _, path in newest_first(Path(file)))
        else:
            yield file


def _read(file: str, pids: frozenset[int] = frozenset()) -> Iterator[Record]:
    """The records of one file. Errors are also printed on standard error."""
    from rogue_hunter.capture.reports.collect import WHOLE
    from rogue_hunter.capture.reports.detect import read
    from rogue_hunter.text.format import path_text

    name = "standard input" if file == "-" else file
    with _opened(file) as stream:
        for each in read(stream, frames_of=(lambda pid: pid in pids) if pids else None):
            if each["type"] == "error":
                where = f", line {each['line']}" if "line" in each else ""
                run.say(f"{name}{where}: {each['message']}")
            elif each["type"] in WHOLE and file != "-":
                each.setdefault("file", path_text(file))
            yield each


@contextmanager
def _opened(file: str) -> Iterator[io.BufferedReader]:
    if file != "-":
        with _buffered(io.FileIO(file, "rb")) as stream:
            yield stream
            return
    run.input_open()
    yield _buffered(io.FileIO(0, "rb", closefd=False))


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, 1 << 16)


# -- blame -------------------------------------------------------------------------------------------------------------

@command.command("blame")
@click.option("-n", "--limit", type=options.Whole(1), default=10, show_default=True, metavar="N",
              help="With --table: at most N answers for each report.")
@_forms
@_files
def blame(files: tuple[str, ...], limit: int, form: str | None) -> int:
    """Print which process blocks which: the waits of a report or of captures, followed to their roots; the worst first.

    Reads the same files as parse, and records of captures as rh-forensics and rh-report print them.
    """
    from rogue_hunter.capture.blame import blame as judge
    from rogue_hunter.capture.blame import blame_records, suspects
    from rogue_hunter.capture.reports.detect import reports
    from rogue_hunter.report.capture_text import blame_lines
    from rogue_hunter.text.format import visible

    form = run.output_form(form, FORMS)
    code, out = run.OK, run.output()
    found: list[Record] = []
    for file in _named(files):
        kinds: set[str] = set()
        for capture, records in reports(_noting(_read(file), kinds)):
            if not any(each["type"].startswith("spindump_") for each in records):
                continue
            answer, pointed = judge(records), list(suspects(records, capture))
            if form == "table":
                name = capture or next((str(each["file"]) for each in records if "file" in each), file)
                title = [visible(f"{name}:")] if name != file or len(files) > 1 else []
                made = "\n".join([*title, *blame_lines(answer, limit, pointed), ""])
                out.write(made.encode("utf-8", "backslashreplace"))
            elif form == "ndjson":
                out.writelines(wire.dumps(each) + b"\n" for each in (*blame_records(answer, capture), *pointed))
            else:
                found += [*blame_records(answer, capture), *pointed]
        if "error" in kinds and (file in files or any(kind.startswith("spindump_") for kind in kinds)):
            code = run.BAD_INPUT
        elif not any(kind.startswith("spindump_") for kind in kinds) and file in files:
            run.say(f"{'standard input' if file == '-' else file}: has no stacks, so no waits")
            code = run.BAD_INPUT
    if form == "json":
        out.write(wire.dumps_pretty(found) + b"\n")
    out.flush()
    return code


def _noting(records: Iterable[Record], kinds: set[str]) -> Iterator[Record]:
    """The records; adds their types to `kinds`."""
    for each in records:
        kinds.add(each["type"])
        yield each


# -- capture -----------------------------------------------------------------------------------------------------------

@command.command("capture")
@_forms
@options.config_option
@click.argument("pids", nargs=-1, type=options.Whole(1), metavar="[PID ...]")
def capture(pids: tuple[int, ...], form: str | None, config: Config) -> int:
    """Capture processes now, and the processes that block them; the first one is the culprit.

    Without a PID: processes in uninterruptible sleep or waiting for a file lock. Exit 69 if a process does not exist.
    """
    from rogue_hunter.capture.worker import capture_now
    from rogue_hunter.report.capture_text import capture_text
    from rogue_hunter.report.render import Answer

    form = run.output_form(form, FORMS)
    records, missing = capture_now(pids, config.forensics)
    for pid in missing:
        run.say(f"{pid}: no such process")
    if not records:
        return run.UNAVAILABLE
    return run.print_answer(Answer(records, lambda look: capture_text(records[0], records[1:], look),
                                   code=run.UNAVAILABLE if missing else run.OK), form)


# -- profile -----------------------------------------------------------------------------------------------------------

LONGEST_S = 300.0


@command.command("profile")
@click.option("--pid", type=options.Whole(1), required=True, metavar="PID", help="The process.")
@click.option("--for", "seconds", type=options.Seconds(), default="5s", show_default=True, metavar="TIME",
              help="How long, at most 5m.")
@click.option("--flame", "form", flag_value="flame", help="Collapsed stacks, for a flame graph.")
@click.option("--speedscope", "form", flag_value="speedscope", help="A file for https://www.speedscope.app.")
@_forms
def profile(pid: int, seconds: float, form: str | None) -> int:
    """Record where a process spends its CPU time, 99 times a second, on Linux: stacks with function names.

    A process of Python is recorded by py-spy if that is installed, so that the frames are its functions. Exit 69 if the
    process does not exist or must not be recorded, 1 if it used no CPU time.
    """
    from rogue_hunter.recorder.profile import profile as make
    from rogue_hunter.report.capture_text import collapsed_text, speedscope, top_text
    from rogue_hunter.report.render import Answer

    if seconds > LONGEST_S:
        raise run.Failure(f"--for: at most {LONGEST_S:g}s", run.USAGE)
    shown = form if form in ("flame", "speedscope") else run.output_form(form, FORMS)
    records = make(pid, seconds)
    if not records:
        run.say(f"{pid}: used no CPU time")
    if shown == "speedscope":
        data = wire.dumps_pretty(speedscope(records, f"process {pid}")) + b"\n"
    elif shown == "flame":
        data = collapsed_text(records).encode("utf-8", "backslashreplace")
    else:
        return run.print_answer(Answer(records, lambda look: top_text(records, look, 20) if records else "",
                                       code=run.OK if records else run.FOUND), shown)
    run.emit(data)
    return run.OK if records else run.FOUND


main = run.entry(command)
