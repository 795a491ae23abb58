"""One strict grammar of time: what it knows means one thing, what it does not know is an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rogue_hunter.text.timespec import DURATIONS, TIMES, parse_duration, parse_time

NOW = 1_795_244_561.25  # 2026-11-21 07:02:41.25 UTC
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


@contextmanager
def local_zone(name: str) -> Iterator[None]:
    """This process in another time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(("text", "seconds"), [
    ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("1w", 604_800), ("90", 90), ("0", 0), ("1", 1),
    ("1.5h", 5400), ("0.5", 0.5), (" 5m ", 300), ("1H", 3600), ("5ms5s", 5.005), ("007s", 7)])
def test_duration(text: str, seconds: float) -> None:
    """Numbers with units, one after the other; a number that stands alone is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [
    "", " ", "h", "1 h", "1h 30m", "1m30", "-1h", "+1h", "1y", "1M2", "1mo", "1e3", "1e3s", "0x10", "1_000", "1,5h",
    ".5h", "5.h", "1..5s", "inf", "nan", "soon", "1h;", "1h\n2h", "١h", "１h", "1s\x00", "∞", "1µs", "P1D", "1:30"])
def test_no_duration(text: str) -> None:
    """Anything else is an error that names the forms."""
    with pytest.raises(ValueError, match="is not a length of time") as refused:
        parse_duration(text)
    assert DURATIONS in str(refused.value)


@pytest.mark.parametrize("text", ["101w" * 60, "40000d", "9" * 400, "9" * 400 + "s", "1e400"])
def test_endless_duration(text: str) -> None:
    """More than a hundred years is a mistake, and even the longest number gets this error."""
    with pytest.raises(ValueError, match=r"longer than 100 years|is not a length"):
        parse_duration(text)


@given(st.integers(0, 36_500 * 86_400))
def test_duration_round_trip(seconds: int) -> None:
    """Written in the largest units first, a length means itself."""
    text, rest = "", seconds
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    assert parse_duration(text or "0s") == seconds


@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from(sorted(UNITS))), min_size=1, max_size=5))
def test_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    """In any order."""
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(count * UNITS[unit] for count, unit in parts))
    assert parse_time(text, NOW) == pytest.approx(NOW - parse_duration(text))
    assert parse_time(f"{text} ago", NOW) == parse_time(f"-{text}", NOW) == parse_time(text, NOW)


@given(st.text(max_size=30))
@example("12:60")
@example("@")
@example("2026-02-30")
@example("0000-01-01")
@example("9999-12-31T23:59:59-23:59")
@example("0001-01-01T00:00:00+23:59")
@example("@999999999999")
def test_any_text_is_a_number_or_an_error(text: str) -> None:
    """No other exception, and no time that is not finite."""
    for parse in (parse_duration, lambda text: parse_time(text, NOW)):
        try:
            value = parse(text)
        except ValueError as error:
            assert len(str(error)) < 400
        else:
            assert isinstance(value, float) and abs(value) < 1e15


@pytest.mark.parametrize("zone", ZONES)
def test_words_and_times_of_day(zone: str) -> None:
    """Local midnight, local clock; a time of day that has not come yet was yesterday's."""
    with local_zone(zone):
        now = datetime(2026, 11, 21, 15, 30, 10).timestamp()

        def at(*fields: int) -> float:
            return datetime(*fields).timestamp()  # type: ignore[arg-type]

        assert parse_time("now", now) == now
        assert parse_time("Today", now) == at(2026, 11, 21)
        assert parse_time("yesterday", now) == at(2026, 11, 20)
        assert parse_time("14:32", now) == at(2026, 11, 21, 14, 32)
        assert parse_time("9:05:07", now) == at(2026, 11, 21, 9, 5, 7)
        assert parse_time("15:30:10", now) == now
        assert parse_time("15:30:11", now) == at(2026, 11, 20, 15, 30, 11)
        assert parse_time("23:59", now) == at(2026, 11, 20, 23, 59)
        assert parse_time("2026-11-20", now) == at(2026, 11, 20)
        assert parse_time("2026-11-20T14:32", now) == at(2026, 11, 20, 14, 32)
        assert parse_time("2026-11-20 14:32:05.5", now) == at(2026, 11, 20, 14, 32, 5) + 0.5


def test_a_zone_that_is_given_counts() -> None:
    """Z and offsets, wherever the machine stands; @ is the epoch."""
    with local_zone("Asia/Kathmandu"):
        assert parse_time("2026-11-21T07:02:41Z", NOW) == 1_795_244_561
        assert parse_time("2026-11-21 08:02:41+01:00", NOW) == 1_795_244_561
        assert parse_time("@1795244561", NOW) == 1_795_244_561
        assert parse_time("@1795244561.25", NOW) == NOW
        assert parse_time("@0", NOW) == 0


@pytest.mark.parametrize("text", [
    "", "90", "1795244561", "soon", "last week", "tomorrow", "1h later", "ago", "now ago", "24:00", "12:60", "12:30:61",
    "12", "1:2:3:4", "5 pm", "@", "@-5", "@1e9", "@nan", "2026", "2026-13-01", "2026-02-30", "21.11.2026", "11/21/2026",
    "2026-11-21T25:00", "--1h", "14:32 yesterday", "１４:32", "14:32\n15:00"])
def test_no_time(text: str) -> None:
    """A bare number could be seconds, an hour or an epoch: it is refused, as all that is unclear is."""
    with pytest.raises(ValueError, match="is not a time") as refused:
        parse_time(text, NOW)
    assert TIMES in str(refused.value)


@given(st.floats(0, 4e9, allow_nan=False), st.sampled_from(ZONES), st.integers(-12 * 60, 14 * 60))
def test_time_round_trip(ts: float, zone: str, offset: int) -> None:
    """A moment written with its offset, or as an epoch, is that moment, in every zone."""
    ts = round(ts, 6)
    written = datetime.fromtimestamp(ts, timezone(timedelta(minutes=offset)))
    with local_zone(zone):
        assert parse_time(written.isoformat(), NOW) == pytest.approx(ts, abs=1e-5)
        assert parse_time(written.isoformat(" "), NOW) == pytest.approx(ts, abs=1e-5)
        assert parse_time(f"@{ts:.6f}", NOW) == pytest.approx(ts, abs=1e-5)


@given(st.integers(1_700_000_000, 1_900_000_000), st.integers(0, 23), st.integers(0, 59), st.sampled_from(ZONES))
def test_a_time_of_day_is_the_last_one_that_was(now: int, hour: int, minute: int, zone: str) -> None:
    """Never in the future, at most a day back (an hour more where clocks change), and the clock showed it then."""
    with local_zone(zone):
        then = parse_time(f"{hour:02d}:{minute:02d}", now)
        assert now - 25 * 3600 - 60 < then <= now
        shown = datetime.fromtimestamp(then)
        # In the night in which the clock is set forward there is no half past two: what comes instead is an hour later.
        meant = shown.replace(hour=hour, minute=minute, second=0)
        assert shown == meant or meant < shown <= meant + timedelta(hours=1)


def test_in_the_hour_that_winter_time_repeats() -> None:
    """Both may be meant; the later one that has come is."""
    with local_zone("Europe/Berlin"):
        first = datetime(2026, 10, 25, 2, 0).timestamp()
        second = first + 3600
        assert parse_time("02:10", second + 1800) == second + 600
        assert parse_time("02:45", second + 1800) == first + 2700
        assert parse_time("02:45", first + 1800) == datetime(2026, 10, 24, 2, 45).timestamp()
        assert parse_time("03:10", second + 1800) == datetime(2026, 10, 24, 3, 10).timestamp()
