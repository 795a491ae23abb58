"""Documents made from the declarations: `python -m tests.tools.docs` writes them, `--check` says which are stale.

    rogue_hunter/schemas/TYPE.json   a JSON Schema (2020-12) of each record type, from schema.RECORDS
    rogue_hunter/data/fleet/clickhouse.sql
    man/rogue-hunter.5               the tables of records, configuration keys and database columns
    man/rogue-hunter.7, README.md    the list of commands, from the first lines of their manual pages
    man/rh-NAME.1                    the options, from the declarations of the command; what follows a line `.\\" more` in
                                     an option's item is written by hand and stays

Only what stands between two marker comments is replaced; the prose around it is written by hand. Works in a checkout:
an installed package has the schemas only.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from rogue_hunter.cli import names
from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import Setting, settings
from rogue_hunter.report.views.sql import USUAL
from rogue_hunter.schema import RECORDS, SUMMARY
from rogue_hunter.schema.field import VERSION, Field
from rogue_hunter.schema.sampling import METRICS, SNAPSHOT
from rogue_hunter.store.tables import TABLES, Table
from rogue_hunter.stream import wire
from tests.tools.clickhouse import clickhouse

REPO = Path(__file__).resolve().parents[2]

HOW = "python -m tests.tools.docs"
"""The text of a marker for its readers."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Filters": ("sample", "score", "track", "match", "reap", "forensics"),
    "The whole": ("pipe",),
    "Readers": ("report", "top", "tail", "metrics", "mcp"),
    "Keepers": ("prune", "config", "service"),
    "Many machines": ("ship", "hub"),
    "Measuring": ("bench",),
}
"""The commands in the order of the lists; one that has no page yet is left out, an unknown one comes last."""

_TYPES: dict[type, tuple[str, str]] = {
    int: ("integer", "integer"), float: ("number", "number"), str: ("string", "text"),
    bool: ("boolean", "true or false"), list: ("array", "array"), dict: ("object", "object"),
}
"""Python type -> its name in JSON Schema, and in the manual."""

_UNITS = {"1": "ratio", "x": "times", "0-100": "0 to 100"}
"""Units whose short form says nothing in a sentence."""


class DocsError(Exception):
    """The documents cannot be made: no checkout, or a marker is missing."""


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of one record type. Unknown keys are allowed: a later version may add some."""
    declared = RECORDS[kind]
    properties: dict[str, Any] = {
        "type": {"const": kind, "description": "the record's type"},
        "v": {"const": VERSION, "description": "version of the format"},
    }
    properties |= {field.name: _property(field) for field in declared}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rogue-hunter:{VERSION}:{kind}",
        "title": kind,
        "description": SUMMARY[kind],
        "type": "object",
        "required": ["type", "v", *(field.name for field in declared if field.required)],
        "properties": properties,
        "additionalProperties": True,
    }


def _property(field: Field) -> dict[str, Any]:
    """A field. `x-unit`, `x-platforms` and `x-stage` are annotations: a validator passes over them."""
    made: dict[str, Any] = {"type": _TYPES[field.type][0], "description": field.doc}
    if field.choices:
        made["enum"] = list(field.choices)
    if field.unit == "0-100":
        made |= {"minimum": 0, "maximum": 100}
    if field.unit:
        made["x-unit"] = field.unit
    return {**made, "x-platforms": field.platforms.split(), "x-stage": field.stage}


def record_tables() -> Iterator[str]:
    """mdoc: a subsection for each record type. Fields taken over from the process row are named, not described again."""
    for kind, declared in RECORDS.items():
        yield f".Ss {kind}"
        yield _sentence(SUMMARY[kind])
        carries = kind != "process" and {f.name for f in SNAPSHOT} <= {f.name for f in declared}
        own = [f for f in declared if not (carries and (f in SNAPSHOT or _is_range(f)))]
        for stage in dict.fromkeys(f.stage for f in own):
            if stage != own[0].stage:
                yield f".Pp\nAdded by\n.Xr rh-{stage} 1 :"
            yield from _list((f.name, _told(f)) for f in own if f.stage == stage)
        if carries:
            yield from _carried("field")


def column_tables() -> Iterator[str]:
    """mdoc: a subsection for each table of the database."""
    for table in TABLES:
        yield f".Ss {table.name}"
        yield _sentence(table.doc)
        names = {c.name for c in table.columns}
        carries = {f.name for f in SNAPSHOT} <= names
        own = [c for c in table.columns if not (carries and (c in SNAPSHOT or _is_range(c)))]
        yield from _list((c.name, _column(table, c)) for c in own)
        if carries:
            yield from _carried("column")


def _carried(word: str) -> Iterator[str]:
    left_out = sorted({f.name for f in RECORDS["process"]} - {f.name for f in SNAPSHOT})
    yield ".Pp"
    yield f"And a {word} for each field of"
    yield ".Sy process"
    yield f"but {', '.join(left_out[:-1])} and {left_out[-1]}, and"
    yield f".Ar NAME Ns _low\nand\n.Ar NAME Ns _high\nfor each that is marked metric ({len(METRICS)} of them)."


def _is_range(field: Field) -> bool:
    return field.name.removesuffix("_low").removesuffix("_high") in {f.name for f in METRICS} \
        and field.name.endswith(("_low", "_high"))


def _told(field: Field) -> str:
    words = [_TYPES[field.type][1], _UNITS.get(field.unit, field.unit)]
    words += ["always there"] if field.required else []
    words += ["metric"] if field.metric else []
    words += [{"linux": "Linux", "macos": "macOS"}[field.platforms]] if " " not in field.platforms else []
    told = f"{field.doc} ({', '.join(filter(None, words))})"
    return told + (f": {', '.join(field.choices)}" if field.choices else "")


def _column(table: Table, column: Field) -> str:
    rule = "primary key" if column.name == "id" or f"PRIMARY KEY ({column.name})" in table.rules else \
        "not null" if column.required else "unique" if f"UNIQUE ({column.name})" in table.rules else ""
    return f"{column.doc} ({', '.join(filter(None, (column.sql, _UNITS.get(column.unit, column.unit), rule)))})"


def config_tables() -> Iterator[str]:
    """mdoc: a subsection for each table of the configuration, with keys, defaults, reasons and bounds."""
    tables: dict[str, list[Setting]] = {}
    for setting in settings(Config()):
        tables.setdefault(setting.table, []).append(setting)
    for table, keys in tables.items():
        at: Any = Config()
        for part in table.split("."):
            (doc,) = (f.metadata["doc"] for f in fields(at) if f.name == part)
            at = getattr(at, part)
        yield f".Ss [{table}]"
        yield _sentence(doc)
        declared = {f.name: f.metadata for f in fields(at)}
        yield from _list((f"{s.name} = {_toml(s.default)}", s.doc + _bounds(declared[s.name])) for s in keys)


def _bounds(declared: Any) -> str:
    if declared["choices"]:
        return f" ({', '.join(declared['choices'])})"
    low, high = declared["low"], declared["high"]
    if low is None:
        return ""
    return f" ({low:g} to {high:g})" if high is not None else f" (at least {low:g})"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _list(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield ".Bl -tag -width 24n -compact"
    yield from (item(name, text) for name, text in entries)
    yield ".El"


def item(name: str, text: str) -> str:
    """An item of a list: a name, and text of any kind that describes it."""
    name = name.replace("\\", "\\e").replace('"', "\\(dq")
    head = f'"{name}"' if " " in name else name
    return f".It Va {head}\n{_line(text)}"


def _sentence(text: str) -> str:
    """A text line that begins large and ends with a full stop."""
    return _line(text[0].upper() + text[1:].rstrip(".") + ".")


def _line(text: str) -> str:
    """Text lines of at most 80 bytes in which nothing is obeyed."""
    lines = wrap(text.replace("\\", "\\e"), 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


def commands(repo: Path = REPO) -> dict[str, list[tuple[str, str]]]:
    """Group -> [(command, what it does)] of every command that has a manual page, whose .Nd line says what it does."""
    said: dict[str, str] = {}
    for page in sorted((repo / "man").glob("rh-*.1")):
        found = re.search(r"^\.Nd (.+)$", page.read_text("utf-8"), re.MULTILINE)
        if found is None:
            raise DocsError(f"{page}: has no .Nd line")
        said[page.stem] = found.group(1)
    made = {group: [(f"rh-{n}", said.pop(f"rh-{n}")) for n in names if f"rh-{n}" in said]
            for group, names in GROUPS.items()}
    return {group: rows for group, rows in {**made, "Others": sorted(said.items())}.items() if rows}


def commands_mdoc(repo: Path = REPO) -> Iterator[str]:
    """mdoc: the commands by group."""
    for group, rows in commands(repo).items():
        yield f".Ss {group}"
        yield ".Bl -tag -width 14n -compact"
        for name, does in rows:
            yield f".It Xr {name} 1\n{_line(does)}"
        yield ".El"


def commands_markdown(repo: Path = REPO) -> Iterator[str]:
    """Markdown: one table of all commands."""
    yield "|  | command | what it does |"
    yield "|---|---|---|"
    for group, rows in commands(repo).items():
        for i, (name, does) in enumerate(rows):
            yield f"| {group if i == 0 else ''} | `{name}` | {does} |"


def subcommands(made: click.Command) -> dict[str, click.Command]:
    """The subcommands by name, those that are made when they are called too."""
    if not isinstance(made, click.Group):
        return {}
    context = click.Context(made)
    return {name: sub for name in made.list_commands(context) if (sub := made.get_command(context, name)) is not None}


def options_mdoc(made: click.Command, page: str) -> Iterator[str]:
    """mdoc: the options of a command and of its subcommands. `page` is the page as it is: text below `MORE` stays."""
    more = dict(_handwritten(page))
    subs = subcommands(made)
    found: dict[str, dict[str, list[str]]] = {}     # head -> help -> subcommands, "" for the command itself
    for name, command in {"": made, **subs}.items():
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                found.setdefault(_option_head(param), {}).setdefault(_option_help(param), []).append(name)
    last = [head for head in found if head.endswith("Fl -version")]
    items = {head: found[head] for head in [*(h for h in found if h not in last), *last]}
    yield ".Bl -tag -width Ds"
    for head, texts in {**items, ".It Fl h , Fl -help": {"Print the help and exit.": [""]}}.items():
        yield head
        for text, of in sorted(texts.items(), key=lambda each: -len(each[1])):
            if subs and "" not in of and 2 * len(of) < len(subs):
                yield f".Cm {' , '.join(of)} :"
                text = text if text[:2].isupper() else text[0].lower() + text[1:]
            yield _marked(text)
        if _name_of(head) in more:
            yield MORE
            yield from more[_name_of(head)]
    yield ".El"


MORE = r'.\" more'
"""Line of a page behind which the text of an option is written by hand."""


def _name_of(head: str) -> str:
    """The last spelling of an option in the head of its item: that of --help."""
    return re.findall(r"Fl (\S+)", head)[-1]


def _handwritten(page: str) -> Iterator[tuple[str, list[str]]]:
    """Option -> the lines of its item that are written by hand."""
    block = page.partition(f'.\\" begin options ({HOW})\n')[2].partition('.\\" end options')[0]
    for item in re.split(r"^(?=\.It Fl )", block, flags=re.MULTILINE)[1:]:
        lines = item.removesuffix(".El\n").splitlines()
        if MORE in lines:
            yield _name_of(lines[0]), lines[lines.index(MORE) + 1:]


def _option_head(option: click.Option) -> str:
    value = ""
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) and not option.metavar else ()
        value = f" Cm {' | '.join(choices)}" if choices else f" Ar {option.metavar or option.type.name.upper()}"
    return ".It " + " , ".join(f"Fl {flag[1:]}{value}" for flag in (*option.opts, *option.secondary_opts))


def _option_help(option: click.Option) -> str:
    """The help of an option with its default and its bounds."""
    text = (option.help or "").rstrip(".") + "."
    kind = option.type
    if isinstance(kind, click.IntRange | click.FloatRange):
        bounds = kind._describe_range()
        text += f" From {bounds}." if " to " in bounds else ""
    if option.show_default and option.default not in (None, False):
        text += f" The default is {option.default:g}." if isinstance(option.default, float) else \
            f" The default is {option.default}."
    return text if text.startswith("macOS") else text[0].upper() + text[1:]


def _marked(text: str) -> str:
    """Text lines with options in bold, and metavariables as arguments."""
    text = re.sub(r"(?<![\w-])--?([a-z][a-z-]*)", lambda found: "\\fB" + found[0].replace("-", "\\-") + "\\fP",
                  text.replace("\\", "\\e"))
    text = re.sub(r"\b(?:N|DIR|FILE|PID|TIME)\b", r"\\fI\g<0>\\fP", text)
    lines = [line for sentence in re.split(r"(?<=\.) (?=[A-Z])", text)
             for line in wrap(sentence, 78, break_long_words=False, break_on_hyphens=False)]
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


_HIDDEN = ("slice_boots", "slice_processes", "slice_units", "machine_slices", "process_slices", "group_slices",
           "daemon_state", "_sqlite_migrations", "spindump_reports", "buffer_context")
"""Tables that number things, or of which a view or a query shows more."""
_SHOWN: dict[str, dict[str, Any]] = {
    "pauses": {"sort_desc": "start_time", "label_column": "cause", "facets": ["cause"]},
    "process_events": {"sort_desc": "entry_time", "label_column": "command",
                       "facets": ["peak_band", "dominant_resource", "reason"]},
    "process_snapshots": {"sort_desc": "captured_at", "facets": ["snapshot_type"]},
    "forensic_captures": {"sort_desc": "captured_at", "label_column": "trigger", "facets": ["trigger", "status"]},
    "matches": {"sort_desc": "last_seen", "label_column": "rule", "facets": ["rule"]},
    "actions": {"sort_desc": "ts", "label_column": "rule", "facets": ["outcome", "rule"]},
    "machine_minutes": {"sort_desc": "minute"}, "command_minutes": {"sort_desc": "minute"},
    "waits": {"sort_desc": "ts", "facets": ["kind"]}, "limits": {"sort_desc": "ts", "facets": ["kind"]},
    "log_entries": {"sort_desc": "ts", "facets": ["level"]}, "spindump_processes": {"label_column": "command"},
}
"""Order, label and facets of tables. The large ones have no facets: each is a scan."""


def datasette_tables() -> dict[str, dict[str, Any]]:
    """The tables as the packaged metadata describes them, from the declarations. Columns are described in the manual:
    Datasette would print all of that above the rows."""
    made: dict[str, dict[str, Any]] = {name: {"hidden": True} for name in _HIDDEN}
    for table in TABLES:
        if table.name not in made:
            made[table.name] = {"description": f"{table.doc[0].upper()}{table.doc[1:]}. Columns: man 5 rogue-hunter.",
                                **_SHOWN.get(table.name, {})}
    return made


def generated(repo: Path = REPO) -> dict[Path, str]:
    """Every file with generated parts, whole, as it should be. Raises DocsError."""
    made = {repo / "rogue_hunter" / "schemas" / f"{kind}.json": wire.dumps_pretty(json_schema(kind)).decode() + "\n"
            for kind in RECORDS}
    shipped = repo / "rogue_hunter" / "data" / "datasette.json"
    described = wire.loads(shipped.read_bytes())
    described["databases"][USUAL]["tables"] = datasette_tables()
    made[shipped] = wire.dumps_pretty(described).decode() + "\n"
    made[repo / "rogue_hunter" / "data" / "fleet" / "clickhouse.sql"] = "\n".join(clickhouse()) + "\n"
    documents: tuple[tuple[str, str, dict[str, Callable[[str], Iterable[str]]]], ...] = (
        ("man/rogue-hunter.5", '.\\" {}', {"records": lambda _: record_tables(), "configuration": lambda _: config_tables(),
                                           "database": lambda _: column_tables()}),
        ("man/rogue-hunter.7", '.\\" {}', {"commands": lambda _: commands_mdoc(repo)}),
        ("README.md", "<!-- {} -->", {"commands": lambda _: commands_markdown(repo)}),
        *((f"man/rh-{name}.1", '.\\" {}', {"options": partial(
            options_mdoc, import_module(f"rogue_hunter.cli.{name}").command)}) for name in names()),
    )
    for name, comment, parts in documents:
        try:
            text = (repo / name).read_text("utf-8")
        except OSError as error:
            raise DocsError(f"{repo / name}: {error.strerror}; the documents are made in a checkout") from None
        for part, lines in parts.items():
            text = _splice(repo / name, text, comment.format(f"begin {part} ({HOW})"),
                           comment.format(f"end {part} ({HOW})"), lines(text))
        made[repo / name] = text
    return made


def _splice(path: Path, text: str, begin: str, end: str, lines: Iterable[str]) -> str:
    """`text` with `lines` between the comments."""
    head, found, rest = text.partition(begin + "\n")
    _, found_end, tail = rest.partition(end + "\n")
    if not found or not found_end:
        raise DocsError(f"{path}: no lines `{begin}` and `{end}`")
    return "\n".join((head + begin, *lines, end)) + "\n" + tail


def stale(repo: Path = REPO) -> list[Path]:
    """Files that are not what the declarations say, and schemas of no declared type. Raises DocsError."""
    made = generated(repo)
    left_over = set((repo / "rogue_hunter" / "schemas").glob("*.json")) - made.keys()
    return sorted(left_over | {path for path, text in made.items()
                               if not path.exists() or path.read_text("utf-8") != text})


def write(repo: Path = REPO) -> list[Path]:
    """Bring every stale file up to date; gives them. Raises DocsError."""
    made = generated(repo)
    changed = stale(repo)
    for path in changed:
        if path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], "utf-8")
        else:
            path.unlink()
    return changed


def main(argv: list[str] | None = None) -> int:
    """0 done or fresh, 1 stale (--check), 69 no checkout."""
    parser = argparse.ArgumentParser(prog=HOW, description="Make the documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and name the files that are stale")
    check = parser.parse_args(argv).check
    try:
        paths = stale(REPO) if check else write(REPO)
    except DocsError as error:
        sys.stderr.write(f"docs: {error}\n")
        return 69
    for path in paths:
        sys.stdout.write(f"{path.relative_to(REPO)}: {'stale' if check else 'written'}\n")
    return 1 if check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
