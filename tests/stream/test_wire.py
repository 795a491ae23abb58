"""Records to bytes and back: nothing is lost, nothing bad is acted on, and no input raises."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.schema.field import Field
from rogue_hunter.schema.sampling import PROCESS, TICK
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Tick, record
from tests.tools.ticks import BOOT, Machine, closing, key, lines, read, row, stream


def line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def process(pid: int = 1, start: int = 5, seq: int = 0, **fields: object) -> bytes:
    """A process line of tick `seq`."""
    return line({"type": "process", "v": 1, "ts": 10.0 + seq, "seq": seq, "pid": pid, "start_ticks": start, **fields})


def end(processes: int = 1, seq: int = 0, **fields: object) -> bytes:
    """The closing line of tick `seq`."""
    return line({"type": "tick", "v": 1, **closing(seq, processes, ts=10.0 + seq), **fields})


# -- writing ---------------------------------------------------------------------------------------------------------


def test_layout_of_a_tick() -> None:
    """Process rows first, then the records, the closing row last; each begins with type and v, rows with ts and seq."""
    a = row(7, start_time=1_699_999_990.5)
    tick = Tick(closing(3, 1), {key(a): a}, records=[record("event", ts=1.0)])
    out = wire.Encoder().tick(tick).split(b"\n")
    assert out[-1] == b"" and len(out) == 4
    first, second, third = (json.loads(part) for part in out[:3])
    assert list(first)[:6] == ["type", "v", "ts", "seq", "age_s", "pid"]
    assert first["age_s"] == pytest.approx(1_700_000_001 - 1_699_999_990.5)
    assert {**first, "type": 0} == {**a, "type": 0, "v": 1, "ts": tick.row["ts"], "seq": 3, "age_s": first["age_s"]}  # type: ignore[index]
    assert second == {"type": "event", "v": 1, "ts": 1.0}
    assert list(third)[:4] == ["type", "v", "ts", "seq"] and third["type"] == "tick"


def test_unknown_stays_unknown() -> None:
    """A row without start_time has no age, and nothing is made up."""
    a = {"pid": 1, "start_ticks": 2}
    assert json.loads(wire.Encoder().tick(Tick(closing(0, 1), {(1, 2): a})).split(b"\n")[0]) == {
        "type": "process",
        "v": 1,
        "ts": closing(0, 1)["ts"],
        "seq": 0,
        "pid": 1,
        "start_ticks": 2,
    }


def test_age_is_never_negative() -> None:
    """A wall clock that was set back makes no process younger than newborn."""
    a = row(1, start_time=2e9)
    assert b'"age_s":0.00,' in wire.Encoder().tick(Tick(closing(0, 1), {key(a): a}))


def test_idle_rows_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same row object in the next tick costs no encoding, and its line differs by ts, seq and age only."""
    rows = [row(pid) for pid in range(1, 6)]
    calls: list[object] = []
    real = wire.orjson.dumps
    encoder = wire.Encoder()
    ticks = list(stream([rows, [*rows[:4], dict(rows[4], cpu_percent=3.0)]]))
    first = encoder.tick(ticks[0])

    class Counting:
        OPT_APPEND_NEWLINE = wire.orjson.OPT_APPEND_NEWLINE

        @staticmethod
        def dumps(value: object, option: int = 0) -> bytes:
            calls.append(value)
            return real(value, option=option)

    monkeypatch.setattr(wire, "orjson", Counting)
    second = encoder.tick(ticks[1])
    assert [c for c in calls if isinstance(c, dict) and "pid" in c] == [ticks[1].processes[key(rows[4])]]
    old, new = ([json.loads(x) for x in part.splitlines()] for part in (first, second))
    assert {k for k in new[0] if new[0][k] != old[0][k]} == {"ts", "seq", "age_s"}


def test_encoder_forgets_processes_that_are_gone() -> None:
    """What is kept between ticks is bounded by the processes there are."""
    encoder = wire.Encoder()
    for tick in stream([[row(pid) for pid in range(n, n + 20)] for n in range(1, 2000, 20)]):
        encoder.tick(tick)
    assert len(encoder._bodies) <= 2 * 20 + 64 + 20


def test_one_write_and_one_flush_a_tick() -> None:
    """A reader never meets half of a tick that was written whole."""
    calls: list[str] = []

    class Sink:
        def write(self, data: bytes) -> None:
            calls.append(f"write {data.count(10)}")

        def flush(self) -> None:
            calls.append("flush")

    wire.write(stream([[row(1), row(2)], [row(1)]]), Sink())
    assert calls == ["write 3", "flush", "write 2", "flush"]


def test_only_records() -> None:
    """A stage that answers with records prints those and not the rows."""
    a = row(1)
    tick = Tick(closing(0, 1), {key(a): a}, records=[record("event", ts=1.0)])
    assert wire.only_records(tick) == b'{"type":"event","v":1,"ts":1.0}\n'


@pytest.mark.parametrize("value", ["\ud800", 1 << 64, {1: 2}, object()])
def test_dumps_refuses_what_json_cannot_hold(value: object) -> None:
    """No surrogate and no number beyond 64 bits reaches the wire."""
    with pytest.raises(TypeError):
        wire.dumps({"a": value})


# -- reading ---------------------------------------------------------------------------------------------------------


def test_round_trip_of_a_whole_machine() -> None:
    """What a machine's ticks say is what is read from their lines: rows, changes, exits and closing rows."""
    made = list(Machine(1).ticks(60))
    got, reader = read(lines(made))
    assert (reader.bad, reader.truncated) == (0, "")
    assert len(got) == len(made)
    for one, other in zip(made, got, strict=True):
        assert list(one.processes.items()) == list(other.processes.items())
        assert one.row == other.row
        if one.row["seq"]:  # type: ignore[index]
            assert set(one.exited) == set(other.exited)
            assert other.changed <= one.changed
    assert lines(got) == lines(made)


VALUES = {
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    float: st.floats(-9e18, 9e18),
    bool: st.booleans(),
    str: st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
    list: st.lists(st.text("ab", max_size=3), max_size=3),
    dict: st.just({}),
}


def rows_of(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, object]]:
    """Rows with any of the declared fields, each of its type."""
    return st.fixed_dictionaries(
        {}, optional={f.name: VALUES[f.type] for f in fields if f.name not in ("ts", "seq", "age_s")}
    )


@pytest.mark.slow
@given(
    st.dictionaries(st.tuples(st.integers(0, 1 << 31), st.integers(0, 1 << 62)), rows_of(PROCESS), max_size=4),
    rows_of(TICK),
)
def test_round_trip_of_any_row(rows: dict[tuple[int, int], dict[str, object]], fields: dict[str, object]) -> None:
    """Every declared field survives the wire unchanged, with any value."""
    held = {k: {**made, "pid": k[0], "start_ticks": k[1], "start_time": None} for k, made in rows.items()}
    held = {k: {name: v for name, v in made.items() if v is not None} for k, made in held.items()}
    end_row = closing(0, len(held), **{k: v for k, v in fields.items() if k not in ("processes", "ts", "seq")})
    (got,), reader = read(lines([Tick(end_row, held)]))
    assert reader.bad == 0
    assert got.processes == held
    assert got.row == end_row


def test_nulls_are_unknown() -> None:
    """A null field is the same as a missing one."""
    (tick,), _ = read(process(cpu_percent=None, nice=0) + end())
    assert tick.processes[1, 5] == {"pid": 1, "start_ticks": 5, "nice": 0}


def test_a_row_that_says_the_same_is_the_same_object() -> None:
    """That is how a stage behind a pipe knows that a process did nothing."""
    first, second = read(process(nice=1) + end() + process(seq=1, nice=1, age_s=3.0) + end(seq=1))[0]
    assert second.processes[1, 5] is first.processes[1, 5]
    assert second.changed == set() and first.changed == {(1, 5)}


@pytest.mark.parametrize(("before", "after"), [(0, 0.0), (1.0, 1)])
def test_equal_numbers_of_another_kind_are_another_row(before: float, after: float) -> None:
    """0 and 0.0 are equal in Python and not on the wire: what is passed on is what came in."""
    data = process(cpu_percent=before) + end() + process(seq=1, cpu_percent=after) + end(seq=1)
    got, reader = read(data)
    assert reader.bad == 0
    assert lines(got).count(b'"cpu_percent":%b' % json.dumps(after).encode()) >= 1
    assert type(got[1].processes[1, 5]["cpu_percent"]) is type(after)


@pytest.mark.parametrize("bad", [{"pid": True}, {"pid": 1.0}, {"start_ticks": 5.0}, {"nice": False}])
def test_equal_values_of_a_wrong_type_are_refused(bad: dict[str, object]) -> None:
    """`true` is no pid, even when the tick before had pid 1."""
    got, reader = read(process(nice=0) + end() + process(seq=1, **{"nice": 0, **bad}) + end(seq=1))
    assert reader.bad == 1
    assert got[1].processes == {}


def test_exited() -> None:
    """A process that is missing from a whole tick is gone; from a partial one it is only not listed."""
    whole = read(process(1) + process(2) + end(2) + process(1, seq=1) + end(1, seq=1))[0]
    assert whole[1].exited == ((2, 5),)
    part = read(process(1) + process(2) + end(2) + process(1, seq=1) + end(2, seq=1))[0]
    assert part[1].exited == () and part[1].partial


def test_other_records_travel_on() -> None:
    """A filter passes on record types and keys that it does not know, in their place."""
    pause = {"type": "pause", "v": 1, "start": 1.0, "culprits": [{"pid": 1}]}
    data = line(pause) + process(later={"a": [1]}) + line(pause) + end(marker="x")
    got, reader = read(data)
    assert reader.bad == 0
    assert [t.records for t in got] == [[pause], [pause]]
    assert lines(got) == line(pause).replace(b" ", b"") + b"".join(
        x.replace(b" ", b"") for x in (process(later={"a": [1]}), line(pause), end(marker="x"))
    )


# -- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "not JSON": b"{nonsense\n",
    "empty line": b"\n",
    "array": b"[1]\n",
    "text": b'"x"\n',
    "number": b"7\n",
    "null": b"null\n",
    "NaN": b'{"type":"process","v":1,"ts":10.0,"seq":0,"pid":1,"start_ticks":5,"nice":NaN}\n',
    "infinite": b'{"type":"process","v":1,"ts":10.0,"seq":0,"pid":1,"start_ticks":5,"cpu_percent":1e999}\n',
    "not UTF-8": b'{"type":"x","v":1,"a":"\xff"}\n',
    "surrogate": b'{"type":"x","v":1,"a":"\\ud800"}\n',
    "byte order mark": b"\xef\xbb\xbf" + process(),
    "two records": process().rstrip() + process(),
    "NUL": b"\0" * 40 + b"\n",
    "no type": line({"v": 1}),
    "type 7": line({"type": 7, "v": 1}),
    "no v": line({"type": "x"}),
    "v text": line({"type": "x", "v": "1"}),
    "v 2": line({"type": "process", "v": 2}),
    "v true": line({"type": "x", "v": True}),
    "v 0": line({"type": "x", "v": 0}),
    "no pid": line({"type": "process", "v": 1, "ts": 10.0, "seq": 0, "start_ticks": 5}),
    "no start": line({"type": "process", "v": 1, "ts": 10.0, "seq": 0, "pid": 1}),
    "no ts": line({"type": "process", "v": 1, "seq": 0, "pid": 1, "start_ticks": 5}),
    "no seq": line({"type": "process", "v": 1, "ts": 10.0, "pid": 1, "start_ticks": 5}),
    "pid text": process("1234"),
    "pid float": process(1e3),
    "pid true": process(True),
    "pid negative": process(-5),  # type: ignore[arg-type]
    "pid null": process(None),
    "pid list": process([1]),
    "pid object": process({}),
    "pid huge": process(1 << 63),  # type: ignore[arg-type]
    "start list": process(1, [1]),
    "start negative": process(1, -1),
    "nice true": process(nice=True),  # type: ignore[arg-type]
    "memory text": process(memory_bytes="1"),
    "memory 2**63": process(memory_bytes=1 << 63),
    "command number": process(command=5),
    "ts text": process(ts="now"),
    "ts true": process(ts=True),
    "ts negative": process(ts=-1.0),
    "ts year 30000": process(ts=1e12),
    "nested": b'{"type":"x","v":1,"a":' + b"[" * 400 + b"]" * 400 + b"}\n",
    "nested row": process()[:-2] + b',"a":' + b"[" * 400 + b"]" * 400 + b"}\n",
    "nested beyond reading": b'{"type":"x","v":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "long": b'{"type":"x","v":1,"a":"' + b"x" * (3 << 20) + b'"}\n',
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_line(bad: bytes) -> None:
    """A line that is no record becomes one error record; the rows before and behind it are not touched."""
    got, reader = read(process(8) + bad + process(9) + end(3), "rh-test")
    assert reader.bad == 1 and reader.first_bad.startswith("line 2: ")
    tick = got[-1]
    assert set(tick.processes) == {(8, 5), (9, 5)} and tick.partial
    (error,) = [r for t in got for r in t.records]
    assert {**error, "message": ""} == {"type": "error", "v": 1, "stage": "rh-test", "line": 2, "message": ""}
    assert 3 <= len(error["message"]) < 200 and "\n" not in error["message"]
    assert lines(got)


def test_carriage_return_is_blank() -> None:
    """Lines that went through a DOS tool are still records."""
    got, reader = read(process().replace(b"\n", b"\r\n") + end())
    assert reader.bad == 0 and set(got[0].processes) == {(1, 5)}


@pytest.mark.parametrize("char", ["\u2028", "\u0085", "\u001e", "\r"])
def test_lines_end_at_line_feeds_only(char: str) -> None:
    """Characters that some libraries split lines at are part of a name."""
    data = (
        json.dumps(
            {"type": "process", "v": 1, "ts": 10.0, "seq": 0, "pid": 1, "start_ticks": 5, "command": f"a{char}b"},
            ensure_ascii=char < " ",
        ).encode()
        + b"\n"
    )
    (tick,), reader = read(data + end())
    assert reader.bad == 0
    assert tick.processes[1, 5]["command"] == f"a{char}b"


def test_twice_in_one_tick() -> None:
    """The second row of a process in one tick is refused; the first stands."""
    (tick,), reader = read(process(nice=1) + process(nice=2) + end())
    assert reader.bad == 1 and tick.processes[1, 5]["nice"] == 1


@pytest.mark.parametrize(
    "bad", [b"garbage\n", end(cpus="two"), end(v=2), end(processes=None)], ids=["garbage", "type", "v", "required"]
)
def test_bad_closing_row_drops_its_rows(bad: bytes) -> None:
    """Without its closing row a tick is truncated: its rows never replace those of the next one."""
    got, reader = read(process(1, nice=1) + process(2) + bad + process(1, seq=1, nice=7) + end(seq=1))
    assert [t for t in got if t.row is not None] == got[-1:]
    assert got[-1].processes == {(1, 5): {"pid": 1, "start_ticks": 5, "nice": 7}}
    assert reader.bad == 2
    assert any("without a closing" in r["message"] for t in got for r in t.records)


def test_bad_closing_row_and_nothing_after() -> None:
    """The rows of the last tick are dropped and reported when its closing row is bad."""
    got, reader = read(process() + end(cpus="two"))
    assert [t.row for t in got] == [None]
    assert "1 process rows" in reader.truncated


def test_rows_of_a_lost_tick_before_an_empty_one() -> None:
    """Rows whose closing row is missing are not taken for rows of the next closing row."""
    got, reader = read(process(1) + end(5, seq=1))
    assert got[-1].processes == {} and got[-1].row["seq"] == 1  # type: ignore[index]
    assert reader.bad == 1


def test_truncated_tick() -> None:
    """End of input without the closing row: the tick is dropped and reported; nothing of it is returned."""
    got, reader = read(process(1) + end() + process(1, seq=1) + process(2, seq=1))
    assert len(got) == 1
    assert reader.truncated == "2 process rows without a closing tick row" and reader.bad == 0


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_last_line_without_line_feed(cut: int) -> None:
    """A last line without LF is truncated, even when what is there is JSON."""
    got, reader = read(process(1) + end() + process(1, seq=1) + end(seq=1)[:-cut])
    assert len(got) == 1
    assert reader.truncated == "the last line does not end" and reader.bad == 0


def test_cut_at_every_byte() -> None:
    """Wherever the input is cut, whole ticks are returned, the rest is reported, and no row is half read."""
    data = lines(stream([[row(1), row(2)], [row(1)], [row(1), row(3)]]))
    ends = [
        i + 1
        for i in range(len(data))
        if data[i : i + 1] == b"\n" and data[:i].rsplit(b"\n", 1)[-1].startswith(b'{"type":"tick"')
    ]
    for cut in range(len(data) + 1):
        got, reader = read(data[:cut])
        assert len(got) == sum(e <= cut for e in ends)
        assert bool(reader.truncated) is (cut not in (0, *ends))
        assert reader.bad == 0


def test_endless_line() -> None:
    """A line without end is neither kept in memory nor waited for."""

    class Endless(io.RawIOBase):
        left = 40

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.left -= 1
            buffer[:] = b"x" * len(buffer)
            return len(buffer) if self.left > 0 else 0

    reader = wire.Reader(io.BufferedReader(Endless(), 1 << 17), "t")
    (tick,) = reader.ticks()
    assert "longer than" in tick.records[0]["message"]


def test_ticks_come_as_they_are_read() -> None:
    """A tick is given out as soon as its closing row is there: nothing is read ahead."""
    taken = []

    class Stream(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            taken.append(self.tell())
            return super().readline(size)

    data = process() + end() + process(seq=1) + end(seq=1)
    ticks: Iterator[Tick] = wire.Reader(Stream(data), "t").ticks()
    next(ticks)
    assert len(taken) == 2


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RECORDLIKE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["process", "tick", "event", "error", "new"]) | JSON_VALUES,
        "v": st.sampled_from([1, 1, 1, 2, True, None]),
    },
    optional={
        name: JSON_VALUES | st.integers(0, 3)
        for name in (
            "ts",
            "seq",
            "pid",
            "start_ticks",
            "mono_ns",
            "processes",
            "command",
            "score",
            "interval_s",
            "boot_id",
            "cpu_percent",
        )
    },
)
GARBAGE = st.one_of(
    st.binary(max_size=60),
    JSON_VALUES.map(lambda v: json.dumps(v).encode()),
    RECORDLIKE.map(lambda v: json.dumps(v).encode()),
    st.sampled_from([process().rstrip(), end().rstrip(), process(2, seq=1).rstrip(), end(seq=1).rstrip()]),
)


@pytest.mark.slow
@given(st.lists(GARBAGE, max_size=12), st.booleans())
def test_any_bytes(parts: list[bytes], ended: bool) -> None:
    """Any input gives ticks and error records, never an exception, and what comes out can be written and read again."""
    data = b"\n".join(parts) + (b"\n" if ended else b"")
    got, reader = read(data)
    for tick in got:
        for k, made in tick.processes.items():
            assert k == (made["pid"], made["start_ticks"]) and all(type(x) is int and x >= 0 for x in k)
    assert reader.bad == sum(r["type"] == "error" and r.get("stage") == "test" for t in got for r in t.records)
    again, second = read(lines(got))
    assert second.bad == 0 and second.truncated == ""
    assert lines(again) == lines(got)


@given(st.data())
def test_any_mutation_of_real_input(data: st.DataObject) -> None:
    """Bytes changed in, cut out of or put into real records: no exception, and every tick was closed by its row."""
    real = bytearray(lines(Machine(3, processes=4).ticks(3)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(real) - 1))
        real[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    got, _ = read(bytes(real))
    for tick in got:
        if tick.row is not None:
            assert tick.row["boot_id"] and len(tick.processes) <= 40
    assert read(lines(got))[1].bad == 0


def test_check() -> None:
    """check says what is wrong with a record of a known type, and lets unknown types and keys pass."""
    wire.check("later", {"pid": "x"})
    wire.check("error", {"stage": "s", "message": "m", "more": object()})
    with pytest.raises(ValueError, match="error without message"):
        wire.check("error", {"stage": "s"})
    with pytest.raises(ValueError, match="pid is text, not int"):
        wire.check("process", {"pid": "1"})
    wire.check("tick", {**closing(0, 0), "boot_id": BOOT, "interval_s": 1})


# -- to the byte -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "whole"), [(1 << 20, True), ((1 << 20) + 1, False), (3 << 19, False)])
def test_a_line_holds_a_mebibyte(length: int, whole: bool) -> None:
    """Its line feed counted; what is longer is refused by its length and not parsed."""
    head, tail = b'{"type":"x","v":1,"a":"', b'"}\n'
    got, reader = read(head + b"x" * (length - len(head) - len(tail)) + tail + process() + end())
    assert got[-1].processes and len(got[0].records) == 1
    assert got[0].records[0]["type"] == ("x" if whole else "error")
    assert reader.first_bad == ("" if whole else "line 1: line longer than 1048576 bytes")


@pytest.mark.parametrize(("ts", "good"), [(0, True), (0.0, True), (-1e-3, False), (99999999999.9, True), (1e11, False)])
def test_a_time_is_from_1970_to_5138(ts: float, good: bool) -> None:
    _, reader = read(process(ts=ts) + end(ts=ts))
    assert (reader.bad == 0) is good
    if not good:
        assert reader.first_bad == "line 1: ts is not a time"


@pytest.mark.parametrize(("bad", "said"), [
    (line({"type": "process", "v": 1, "seq": 0, "pid": 1, "start_ticks": 5}), "process without ts"),
    (line({"type": "process", "v": 1, "ts": 10.0, "pid": 1, "start_ticks": 5}), "process without seq"),
    (process(ts="now"), "ts is text, not float"), (process(seq=1.0), "seq is a fraction, not int"),
    (process(ts=True), "ts is true or false, not float"), (process(ts=-1.0), "ts is not a time"),
    (process(pid="1"), "pid is text, not int"), (process(pid=[]), "pid is an array, not int"),
    (process(pid={}), "pid is an object, not int"), (process(start_ticks=1.5), "start_ticks is a fraction, not int"),
    (process(pid=1 << 63), "pid is beyond 64 bits"), (process(start_time=-1e300), "start_time is beyond 64 bits"),
    (end(interval_s=1e300), "interval_s is beyond 64 bits"), (end(asleep_s=-1e19), "asleep_s is beyond 64 bits"),
    (process(command=7), "command is a whole number, not str"),
    (process(later="x", nice="y"), "nice is text, not int"), (process(pid=-1), "pid or start_ticks below 0"),
    (line({"type": "tick", "v": 1, "ts": 10.0, "seq": 0}), "tick without mono_ns"),
    (line({"v": 1}), "no type"), (line({"type": "x"}), "no v"), (line({"type": "x", "v": 2}), "v is 2; this is version 1"),
    (b"[1]\n", "not a record but an array"), (b"7\n", "not a record but a whole number"),
    (b'{"type":"x","v":1,"a":' + b"[" * 400 + b"]" * 400 + b"}\n", "nested too deeply"),
    (end()[:-2] + b',"a":' + b"[" * 400 + b"]" * 400 + b"}\n", "nested too deeply"),
])
def test_the_error_for_a_bad_line(bad: bytes, said: str) -> None:
    """What is wrong, in words that name the field; the type first that the field should have."""
    got, reader = read(bad)
    assert reader.first_bad == f"line 1: {said}" and reader.bad == 1
    assert [t.records for t in got] == [[{"type": "error", "v": 1, "stage": "test", "line": 1, "message": said}]]


def test_check_looks_behind_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"^pid is text, not int$"):
        wire.check("process", {"new": object(), "pid": "1", "start_ticks": 1})


def test_scored_processes_are_those_with_a_score() -> None:
    """A stage behind a pipe knows the scored as one inside of the process does."""
    (tick,), _ = read(process(1, score=5) + process(2, score=0) + process(3) + end(3))
    assert tick.scored == {(1, 5)}


def test_values_to_json_and_back() -> None:
    value = {"a": [1, 2.5, None, "\u2028"], "b": {}}
    assert wire.loads(wire.dumps(value)) == wire.loads(wire.dumps_pretty(value)) == value
    assert b"\n" not in wire.dumps(value) and wire.dumps_pretty({"a": 1}) == b'{\n  "a": 1\n}'
    for bad in (b"", b"{", b"NaN", b"\xff"):
        with pytest.raises(ValueError, match=r"\w"):
            wire.loads(bad)
    with pytest.raises(TypeError):
        wire.dumps("\ud800")


def test_rows_of_the_dead_are_let_go() -> None:
    """A writer remembers bytes of living processes, and of at most twice as many and 64 more."""

    class Owned(dict):  # type: ignore[type-arg]
        """A row that can be watched."""

    alive: weakref.WeakSet[Owned] = weakref.WeakSet()
    Owned.__hash__ = object.__hash__  # type: ignore[assignment]
    Owned.__eq__ = object.__eq__  # type: ignore[assignment]
    encode, most = wire.Encoder().tick, 0
    for i in range(500):
        made = Owned(row(1 + i))
        alive.add(made)
        encode(Tick(closing(i, 1), {key(made): made}))
        del made
        most = max(most, len(alive))
    assert 1 <= most <= 2 * 1 + 64
