"""What a host sends: rows by number, complete minutes, no secrets, and the same again when it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rogue_hunter.fleet import source
from rogue_hunter.fleet.intake import SUBJECT, parse
from rogue_hunter.fleet.source import Cursor, HostDatabase, Message, Shipper, State, begin
from rogue_hunter.fleet.tables import BY_NAME, MADE, TABLES
from rogue_hunter.text.errors import RogueHunterError
from tests.fleet.database import START, make

MINUTES = 5
A_MINUTE = {"machine_minutes": 1, "command_minutes": 2, "process_slices": 36, "events": 1, "pauses": 1, "captures": 1,
            "actions": 1}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make(tmp_path / "h.db", MINUTES)


def sent(shipper: Shipper) -> list[Message]:
    """Everything that is complete."""
    messages = []
    while (message := shipper.next()) is not None:
        messages.append(message)
        shipper.done(message)
    return messages


def late(shipper_state: State, host: HostDatabase, minutes: int = MINUTES) -> Shipper:
    return Shipper(host, shipper_state, lambda: START + 60 * minutes + source.SETTLE_S)


def test_a_message_has_the_rows_of_one_minute_and_a_hub_takes_it(database: Path) -> None:
    """Every row is a valid record; its count is announced; the numbers of the next message follow."""
    host = HostDatabase(database)
    messages = sent(late(begin(host, "h1", START), host))
    assert [m.minute for m in messages] == [START + 60 * (n + 1) for n in range(MINUTES)]
    reached = dict(messages[0].base)
    for message in messages:
        batch = parse(SUBJECT.format("h1"), message.payload(1.5), 2.0)
        assert {name: len(rows) for name, rows in batch.rows.items()} == A_MINUTE == message.rows
        for name, (base, after, through) in batch.spans.items():
            assert after == reached[name] and base == messages[0].base[name]
            reached[name] = through
    pause = batch.rows["pauses"][0]
    assert (pause["culprit"], pause["start"], pause["evidence"]) == ("cc1plus", START + 250.0, {"late_s": 2.0})
    assert pause["culprits"][0]["share"] == 0.75 and "os_version" in pause
    assert batch.rows["events"][0]["peak_score"] == 54 and batch.rows["events"][0]["kind"] == "checkpoint"
    assert [row["command"] for row in batch.rows["process_slices"][:3]] == ["c5", "c4", "c3"]
    assert (batch.head["host"], batch.head["os"]) == ("h.example", "linux")


def test_a_minute_that_is_not_over_is_not_sent(database: Path) -> None:
    """A row that comes later would never be sent."""
    host = HostDatabase(database)
    assert len(sent(late(begin(host, "h1", START), host, MINUTES - 2))) == MINUTES - 2


def test_a_secret_is_masked_once_more_and_counted(database: Path) -> None:
    host = HostDatabase(database)
    message = sent(late(begin(host, "h1", START), host))[0]
    assert b"hunter2" not in message.body and b"mysql -p*** --host db" in message.body
    assert message.redacted == 1


def test_a_large_minute_is_sent_in_parts(database: Path) -> None:
    """Each part fits; together they have every row, and only the last one ends the minute."""
    host = HostDatabase(database)
    state = begin(host, "h1", START)
    messages = sent(Shipper(host, state, lambda: START + 60 + source.SETTLE_S, budget=2000))
    assert len(messages) > 3 and all(len(m.body) <= 2000 for m in messages)
    assert {name: sum(m.rows.get(name, 0) for m in messages) for name in A_MINUTE} == A_MINUTE
    assert [m.whole for m in messages] == [False] * (len(messages) - 1) + [True]


def test_a_row_that_no_message_can_hold_is_left_out(database: Path) -> None:
    host = HostDatabase(database)
    messages = sent(Shipper(host, begin(host, "h1", START), lambda: START + 60 + source.SETTLE_S, budget=250))
    assert messages[-1].whole and 0 < sum(sum(m.rows.values()) for m in messages) < sum(A_MINUTE.values())


def test_rows_are_sent_again_byte_for_byte_also_in_parts_of_a_minute(database: Path) -> None:
    """What a hub asks for, and only what was sent before."""
    host = HostDatabase(database)
    shipper = late(begin(host, "h1", START), host, 3)
    messages = sent(shipper)
    again = list(shipper.again({name: [list(span)] for name, span in messages[1].spans.items()}))
    assert b"".join(m.body for m in again) == messages[1].body
    after, through = messages[1].spans["process_slices"]
    (part,) = shipper.again({"process_slices": [[after + 10_001, through - 10_000]]})
    assert part.body in messages[1].body and 0 < part.rows["process_slices"] < 36
    (rest,) = shipper.again({"pauses": [[0, 1 << 60]]})
    assert rest.spans["pauses"] == (0, 3)
    for wrong in ([], {"daemon_state": [[0, 9]]}, {"pauses": [[1]]}, {"pauses": [["0", 9]]}, {"pauses": 3}, None):
        assert list(shipper.again(wrong)) == []


def test_the_same_rows_have_the_same_message_id(database: Path) -> None:
    """A message that was stored although its acknowledgement was lost is not stored twice."""
    host = HostDatabase(database)
    first, second = (late(begin(host, "h1", START), host).next() for _ in range(2))
    assert first is not None and second is not None and first.id == second.id
    assert first.payload(1.0) != first.payload(2.0)


def test_the_cursor_survives_a_restart_and_a_damaged_file_is_reported(database: Path, tmp_path: Path) -> None:
    cursor = Cursor(tmp_path / "ship.json")
    assert cursor.load() is None
    host = HostDatabase(database)
    shipper = Shipper(host, begin(host, "h1", START), lambda: START + 120 + source.SETTLE_S, cursor.save)
    sent(shipper)
    assert cursor.load() == shipper.state
    (tmp_path / "ship.json").write_text('{"minute": 1}')
    with pytest.raises(RogueHunterError, match="not a state of rh-ship"):
        cursor.load()


def test_a_new_database_continues_the_numbers(database: Path, tmp_path: Path) -> None:
    """Its ids begin at 1 again; a hub must not take its rows for those of the old one."""
    host = HostDatabase(database)
    shipper = late(begin(host, "h1", START), host)
    sent(shipper)
    new = HostDatabase(make(tmp_path / "new.db", MINUTES - 3))
    assert source.resume(new, shipper.state)
    new = HostDatabase(tmp_path / "new.db")
    assert not source.resume(new, shipper.state)
    assert new.last(BY_NAME["pauses"], MINUTES, START + 6000) == MINUTES + 2
    assert [number for number, _ in new.lines(BY_NAME["pauses"], MINUTES, 100)] == [MINUTES + 1, MINUTES + 2]


def test_a_file_that_is_replaced_while_it_is_read_is_reported(database: Path) -> None:
    """The old one, which is still open, would be silent."""
    host = HostDatabase(database)
    shipper = late(begin(host, "h1", START), host)
    make(database.with_name("new.db"), 1).rename(database)
    with pytest.raises(RogueHunterError, match="was replaced"):
        shipper.next()


def test_minutes_without_rows_are_passed_in_one_message(database: Path) -> None:
    """A host that was off for a day does not send 1,440 empty messages."""
    host = HostDatabase(database)
    shipper = Shipper(host, begin(host, "h1", START - 86_400), lambda: START + 90_000 + source.SETTLE_S)
    assert len(sent(shipper)) == MINUTES + 1


def test_an_identity_is_a_token_of_a_subject(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("abc\n")
    made = source.host_id(machine_id=tmp_path / "machine-id")
    assert made == source.host_id(machine_id=tmp_path / "machine-id") and source.HOST_ID.fullmatch(made)
    assert "abc" not in made and source.host_id(machine_id=tmp_path / "gone") != source.host_id(machine_id=tmp_path / "gone")
    for wrong in ("a.b", "*", "", "a b", "x" * 65):
        with pytest.raises(RogueHunterError, match="letters, digits"):
            source.host_id(wrong)


def test_every_row_that_sqlite_gives_has_the_columns_of_a_hub(database: Path) -> None:
    """The names in the SQL of a host are those of the declared columns."""
    host = HostDatabase(database)
    for table in TABLES:
        names = {column[0] for column in host._db.execute(table.rows, {"after": 0, "through": 0}).description}
        assert {c.name for c in table.columns} - {"os_version", *MADE} == names - {"row"}, table.name
