"""How a command runs: its entry point, its standard streams, and how an error becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from rogue_hunter import OWN_MARK, __version__
from rogue_hunter.text import errors
from rogue_hunter.text.errors import RogueHunterError

if TYPE_CHECKING:
    from rogue_hunter.report.render import Answer
    from rogue_hunter.stream.tick import Record, Tick

OK, FOUND, USAGE = errors.OK, errors.FOUND, errors.USAGE
BAD_INPUT, UNAVAILABLE = errors.BAD_INPUT, errors.UNAVAILABLE
IO_ERROR, CONFIG_ERROR = errors.IO_ERROR, errors.CONFIG_ERROR

FILTERS = frozenset({"rh-score", "rh-track", "rh-match", "rh-reap", "rh-metrics"})
"""Commands that read records from standard input and take no file name."""

class Failure(RogueHunterError):
    """Ends a command with one line on standard error and an exit code."""


def exclude(*cases: tuple[object, str]) -> None:
    """End the command with a usage error: the text of the first case that holds."""
    for wrong, text in cases:
        if wrong:
            raise Failure(text, USAGE)


def say(message: str, name: str | None = None) -> None:
    """Print one line on standard error, after the name of the command that runs, or this one. Control characters in
    names of processes and files are escaped."""
    from rogue_hunter.text.format import visible

    if (context := click.get_current_context(silent=True)) is not None:
        name = context.find_root().info_name
    with suppress(OSError, AttributeError, ValueError):  # standard error is closed
        sys.stderr.write(f"{name or 'rogue-hunter'}: {visible(message)}\n")
        sys.stderr.flush()


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
"""Settings of click that all commands share."""


def _settings(name: str, epilog: str) -> dict[str, Any]:
    return {"name": name, "epilog": "\b\n" + epilog.strip("\n"), "context_settings": CONTEXT}


def command(name: str, epilog: str, *, facts: bool = False) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with --help, -h, --version; `epilog` holds the examples, printed as they are. With `facts`, --version
    also prints what a bug report needs."""
    return lambda function: click.command(**_settings(name, epilog))(version_option(name, facts=facts)(function))


def group(name: str, epilog: str, **more: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """The same for a command with subcommands; `more` is passed to click."""
    return lambda function: click.group(**{"cls": _Group, **_settings(name, epilog), **more})(
        version_option(name)(function))


class _Group(click.Group):
    """A command whose --help has the whole first sentence of each subcommand; click would cut it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        made = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(1000)) for name, each in made if each is not None])


def version_option(name: str, *, facts: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--version; with `facts` it also prints what a bug report needs."""
    def show(context: click.Context, _param: click.Parameter, value: bool) -> None:
        if not value or context.resilient_parsing:
            return
        click.echo(f"{name}, version {__version__}")
        if facts:
            from rogue_hunter.host.facts import facts as lines
            from rogue_hunter.text.format import visible

            for line in lines():
                click.echo(visible(line))
        context.exit()

    return click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show,
                        help="Show the version and exit.")


def entry(made: click.Command, *, prints: bool = True) -> Callable[[], NoReturn]:
    """The function that a launcher calls. A command that `prints` refuses to run with its output closed."""
    def main() -> NoReturn:
        _keep_standard_streams()
        mark()
        _name_process(made.name or "")
        sys.exit(run(made, prints=prints))
    return main


def _keep_standard_streams() -> None:
    """Open /dev/null in place of each closed standard stream: the next file to be opened would get its number, and with
    it what is printed. That a stream is closed is known from sys.stdin, sys.stdout or sys.stderr, which is None."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def mark() -> None:
    """Mark this process as rogue-hunter's own until it ends or runs another program (see host/linux/describe.py).
    Without effect where the kernel has no memfd_create(2)."""
    with suppress(OSError, AttributeError):
        os.memfd_create(OWN_MARK)


def _name_process(name: str) -> None:
    """Make `ps`, `top` and `pgrep` show the command's name instead of the interpreter's (Linux; proc(5), comm)."""
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)


def run(made: click.Command, args: list[str] | None = None, *, prints: bool = True) -> int:
    """Run a command and give its exit code. No traceback for anything that a user or a full disk can do."""
    os.umask(0o077)
    if prints and sys.stdout is None:
        say("standard output is closed", made.name)
        return IO_ERROR
    try:
        result = made.main(args=args, prog_name=made.name, standalone_mode=False)
        code = result if isinstance(result, int) else OK
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        if made.name in FILTERS and re.match("(got )?unexpected extra argument|no such command", error.message, re.I):
            hint = f"{error.message.rstrip('.')}; to read a file: {made.name} < FILE"
            error = click.UsageError(hint, getattr(error, "ctx", None))
        _show(error)
        code = error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return 130
    except (BrokenPipeError, SystemExit):
        # click turns a closed pipe into an exit of its own, and exits for no other reason here.
        return _closed_pipe()
    except MemoryError:
        say("out of memory", made.name)
        code = UNAVAILABLE
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            raise
        say(str(expected[0]), made.name)
        code = expected[1]
    return _flush(made, code)


def _expected(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an error that is not a fault of the program."""
    if isinstance(error, RogueHunterError):
        return str(error), error.code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", IO_ERROR
    return None


def _show(error: click.ClickException) -> None:
    """Print a usage error as click does, with control characters in quoted arguments escaped."""
    from rogue_hunter.text.format import visible

    shown = io.StringIO()
    error.show(shown)
    with suppress(OSError, AttributeError, ValueError):  # standard error is closed
        sys.stderr.write("\n".join(visible(line) for line in shown.getvalue().split("\n")))


def _closed_pipe() -> int:
    """The reader closed the pipe: no message, and nothing left for the interpreter to flush."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return 141


def _flush(made: click.Command, code: int) -> int:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as error:
        say(f"standard output: {error.strerror}", made.name)
        _closed_pipe()
        return IO_ERROR
    return code


class _Output(io.BufferedWriter):
    """Standard output for records. Writing errors name it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"standard output: {error.strerror}", IO_ERROR) from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"standard output: {error.strerror}", IO_ERROR) from None

    def __del__(self) -> None:
        """No flush at the end: a failed write was already reported."""


def output() -> BinaryIO:
    """Standard output for records: buffered, one write a tick."""
    if sys.stdout is None:
        raise Failure("standard output is closed", IO_ERROR)
    return _Output(io.FileIO(1, "wb", closefd=False), 1 << 20)


def emit(data: bytes) -> None:
    """Write all of `data` to standard output at once."""
    out = output()
    out.write(data)
    out.flush()


def for_output(data: bytes) -> bytes:
    """JSON for standard output: on a terminal, characters that it would obey are escaped."""
    from rogue_hunter.text.format import visible_json

    return visible_json(data) if os.isatty(1) else data


def write_output(data: bytes) -> None:
    """Write all of `data` to standard output, unbuffered; blocks as long as the reader does. For a thread: nothing is
    left to be flushed or locked at exit. Raises BrokenPipeError, and Failure for other errors."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(1, left):]
        except BlockingIOError:  # another process made the open file non-blocking
            select.select([], [1], [], 1.0)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"standard output: {error.strerror}", IO_ERROR) from None


def input_open() -> None:
    """Raise Failure if standard input is closed."""
    if sys.stdin is None:
        raise Failure("standard input is closed", IO_ERROR)


def read_ticks(name: str) -> tuple[Iterator[Tick], Callable[[], int]]:
    """The ticks of standard input, and a function for the end: it reports bad input and returns the exit code."""
    from rogue_hunter.stream import wire

    input_open()
    if os.isatty(0):
        raise Failure(f"reads records from standard input, for example: rh-sample -n 3 | {name}", USAGE)
    reader = wire.Reader(io.BufferedReader(io.FileIO(0, "rb", closefd=False), 1 << 16), name)

    def finish() -> int:
        if reader.bad:
            say(f"{reader.bad} line{'s' if reader.bad > 1 else ''} of input could not be used; {reader.first_bad}")
        if reader.truncated:
            say(f"input was cut short: {reader.truncated}; the incomplete tick was dropped")
        return BAD_INPUT if reader.bad or reader.truncated else OK

    return reader.ticks(), finish


def stream_form(form: str | None) -> str:
    """The form of a stream of records: as chosen, else text on a terminal and NDJSON in a pipe. RH_FORMAT does not
    count: the next filter of a pipeline needs records."""
    return form or ("table" if os.isatty(1) else "ndjson")


def write_ticks(ticks: Iterator[Tick], out: BinaryIO, form: str, keep: Callable[[Record], bool] | None = None) -> None:
    """Print ticks as they come: whole, or with `keep` only the records that it selects; as NDJSON or as text."""
    from rogue_hunter.stream import wire

    if form == "ndjson":
        encode = wire.Encoder().tick if keep is None else lambda tick: wire.only_records(tick, keep)
        wire.write(ticks, out, encode=lambda tick: for_output(encode(tick)))
        return
    from rogue_hunter.report.record_text import texts
    from rogue_hunter.report.render import style

    for text in texts(ticks, style(sys.stdout, time.time()), keep):
        out.write(text.encode("utf-8", "backslashreplace"))
        out.flush()


class NeedScores:
    """A stage that changes nothing: it calls `missing` once when a tick has processes and none of them a score."""

    def __init__(self, missing: Callable[[], object]) -> None:
        self._missing: Callable[[], object] | None = missing

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged. Raises what `missing` raises."""
        if self._missing is not None and tick.processes:
            if not any("score" in row for row in tick.processes.values()):
                self._missing()
            self._missing = None
        return tick


class ProcessCount:
    """A stage that changes nothing; `report` prints how many processes the last tick had, for a command that printed
    no record."""

    def __init__(self) -> None:
        self._processes: int | None = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        if tick.row is not None:
            self._processes = len(tick.processes)
        return tick

    def report(self, undecided: int = 0) -> None:
        """Print one line on standard error; nothing if there was no tick. `undecided` is the number of processes that
        may match but for names that cannot be read."""
        if self._processes is not None:
            unread = f"; {undecided} may match, but program or arguments cannot be read" if undecided else ""
            say(f"{self._processes} process{'es' * (self._processes != 1)}, no rule matches{unread}")


def output_form(form: str | None, having: Sequence[str] = ()) -> str:
    """The form chosen by an option, else by RH_FORMAT, else a table on a terminal and NDJSON in a pipe.

    `having`: the forms of a command that does not have all; RH_FORMAT is ignored if it is another one. Raises Failure
    for an unknown form.
    """
    from rogue_hunter.report.render import FORMS

    chosen = form or os.environ.get("RH_FORMAT", "")
    if chosen and chosen not in FORMS:
        raise Failure(f"RH_FORMAT={chosen}: must be one of {', '.join(FORMS)}", USAGE)
    if not chosen or (having and chosen not in having):
        return "table" if os.isatty(1) else "ndjson"
    return chosen


def write_answer(answer: Answer, file: Path) -> int:
    """Write an answer as text to a file that only its owner can read, all of it or nothing; returns the exit code."""
    from rogue_hunter.files import replace
    from rogue_hunter.report.render import render, style

    replace(file, render(answer, "table", style(None, time.time())))
    return answer.code


def print_answer(answer: Answer, form: str | None, *, now: float | None = None, fields: Sequence[str] = (),
                 epoch: bool = False, template: str | None = None) -> int:
    """Print an answer in the form that was chosen (see `output_form`) and return its exit code.

    `fields` selects fields of the records; `epoch` prints times in CSV as seconds since 1970; `template` prints a line
    for each record instead. Raises Failure.
    """
    from rogue_hunter.report.render import formatted, render, select, style

    if template is not None:
        answer, form = formatted(answer, template), "table"
    if fields:
        answer = select(answer, fields)
    form = output_form(form)
    made = render(answer, form, style(sys.stdout, time.time() if now is None else now), epoch=epoch)
    for note in answer.notes:
        say(note)
    emit(for_output(made) if form in ("json", "ndjson") else made)
    return answer.code
