"""The configuration: what is written is read back, what is not declared is refused, and every option has its reason."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.config import toml as cfg
from rogue_hunter.config.options import Bands, Config, StressBands
from rogue_hunter.config.toml import ConfigError
from rogue_hunter.schema.field import BANDS, STATES


def test_defaults() -> None:
    """An empty file is the defaults, and the defaults are those of the design."""
    config = cfg.parse(b"")
    assert config == Config()
    assert (config.system.hz, config.system.ring_ticks) == (3.0, 60)
    assert (config.bands.medium, config.bands.elevated, config.bands.high, config.bands.critical) == (30, 45, 60, 80)
    assert (config.bands.tracking, config.bands.forensics) == ("elevated", "critical")
    stress = config.scoring.stress.bands
    assert (stress.medium, stress.elevated, stress.high, stress.critical, stress.forensics) == (20, 40, 50, 70, "high")
    assert (config.tracking.exit_margin, config.tracking.exit_ticks, config.tracking.checkpoint_s) == (5, 15, 30.0)
    assert config.bands_of("share") is config.bands and config.bands_of("stress") is stress


def test_every_option_has_its_reason_and_keeps_its_bounds() -> None:
    """Each key says in one line why it has its value, and the default itself would be accepted."""
    keys = list(cfg.settings(Config()))
    assert len(keys) > 60
    for s in keys:
        assert s.doc and "\n" not in s.doc, s.name
        assert s.value == s.default
    assert len({(s.table, s.name) for s in keys}) == len(keys)


@pytest.mark.parametrize("commented", [True, False])
def test_round_trip_of_the_defaults(commented: bool) -> None:
    """What `rh-config init` and `rh-config show` write is what is in force."""
    text = cfg.to_toml(Config(), comment_defaults=commented)
    assert cfg.parse(text.encode()) == Config()
    if commented:
        assert all(line.startswith(("#", "[")) for line in text.splitlines() if line)


def values(kind: Any, meta: Any) -> st.SearchStrategy[Any]:
    """Any value that an option may have."""
    if meta["choices"]:
        one = st.sampled_from(meta["choices"])
        return one if kind is str else st.lists(one, max_size=3).map(tuple)
    low, high = meta["low"], meta["high"]
    if kind is int:
        return st.integers(low, high)
    if kind is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if kind is bool:
        return st.booleans()
    assert kind is str
    return st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)


def configs(default: Any) -> st.SearchStrategy[Any]:
    """Configurations of the type of `default` with any allowed value in any option; bands are left as they are."""
    hints = get_type_hints(type(default))
    made = {}
    for f in fields(default):
        current = getattr(default, f.name)
        if isinstance(current, Bands):
            continue
        made[f.name] = configs(current) if is_dataclass(current) else values(hints[f.name], f.metadata)
    return st.fixed_dictionaries({}, optional=made).map(lambda changes: replace(default, **changes))


@pytest.mark.slow
@given(configs(Config()), st.booleans())
def test_round_trip(config: Config, commented: bool) -> None:
    """Every configuration survives being written and read, texts with quotes and control characters included."""
    share = config.scoring.share
    if share.memory_scarce_at >= share.memory_free_at:
        share = replace(share, memory_scarce_at=0.1, memory_free_at=0.5)
        config = replace(config, scoring=replace(config.scoring, share=share))
    assert cfg.parse(cfg.to_toml(config, comment_defaults=commented).encode()) == config


BAD = {
    b"hertz = 3": "hertz: unknown key",
    b"[system]\nring_tick = 3": "system.ring_tick: unknown key; did you mean ring_ticks?",
    b"[systm]\nhz = 3": "systm: unknown key; did you mean system?",
    b"[scoring.stress.bands]\nhihg = 3": "scoring.stress.bands.hihg: unknown key; did you mean high?",
    b"[rule]\n": "rule: unknown key; did you mean rules?",
    b"system = 3": "system: must be a table, not 3",
    b"[[system]]\nhz = 3": "system: must be a table",
    b"[system]\nhz = '3'": 'system.hz: must be a number, not "3"',
    b"[system]\nhz = true": "system.hz: must be a number, not true",
    b"[system]\nhz = nan": "system.hz: must be finite, not nan",
    b"[system]\nhz = inf": "system.hz: must be finite, not inf",
    b"[system]\nhz = 0": "system.hz: must be from 0.01 to 100, not 0",
    b"[system]\nhz = -1.0": "system.hz: must be from 0.01 to 100, not -1.0",
    b"[system]\nhz = {a = 1}": "system.hz: must be a number, not { a = 1 }",
    b"[system]\nhz = 1" + b"0" * 400: "system.hz: must be finite, not 10000",
    b"[system]\nhz = 1" + b"0" * 5000: "limit",
    b"[system]\nring_ticks = 60.0": "system.ring_ticks: must be a whole number, not 60.0",
    b"[system]\nring_ticks = 1": "system.ring_ticks: must be from 2 to 10000",
    b"[system]\nring_ticks = 1979-05-27": "system.ring_ticks: must be a whole number, not 1979-05-27",
    b"[store]\nretry_s = \"2s\"": 'store.retry_s: must be a number, not "2s"',
    b"[socket]\nenabled = 'yes'": 'socket.enabled: must be true or false, not "yes"',
    b"[bands]\ntracking = 'enormous'": 'bands.tracking: must be one of medium, elevated, high, critical, not "enormous"',
    b"[bands]\ntracking = 'elevatd'": 'critical, not "elevatd"; did you mean elevated?',
    b"[log]\nlevel = 5": "log.level: must be one of debug, info, warning, error, not 5",
    b"[bands]\nmedium = 45": "bands: each band must begin above the one before, not at 45, 45, 60, 80",
    b"[bands]\nhigh = 90": "bands: each band must begin above the one before",
    b"[scoring.stress.bands]\nmedium = 60": "scoring.stress.bands: each band",
    b"[scoring.stress]\nthreads = 0": "scoring.stress.threads: must be at least 1e-09",
    b"[scoring.share]\nmemory_free_at = 0.05": "memory_scarce_at must be below memory_free_at (0.05), not 0.1",
    b"[rogue_selection]\nstates = 'defunct'": 'rogue_selection.states: must be an array of texts, not "defunct"',
    b"[rogue_selection]\nstates = [1]": "rogue_selection.states: must be an array of texts, not [1]",
    b"[rogue_selection]\nstates = ['zombie']": 'idle, halted, not "zombie"',
    b"[store]\npath = 7": "store.path: must be a text, not 7",
    b"[system\n": "Expected",
    b"\xff": "not UTF-8",
    b"[system]\nhz = 3\nhz = 3": "overwrite",
    b"a = " + b"[" * 100_000: "recursion",
}


@pytest.mark.parametrize(("data", "reason"), BAD.items(), ids=[str(i) for i in range(len(BAD))])
def test_bad(data: bytes, reason: str) -> None:
    """Every invalid file is refused with file, key and reason; nothing is ignored."""
    with pytest.raises(ConfigError) as error:
        cfg.parse(data, "my.toml")
    assert str(error.value).startswith("my.toml: ")
    assert reason in str(error.value)


@given(st.binary(max_size=60) | st.text(st.sampled_from("[]{}=\"'.,#\n abhzsytem0123"), max_size=60).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    """Any file is a configuration or a ConfigError."""
    try:
        assert isinstance(cfg.parse(data), Config)
    except ConfigError as error:
        assert str(error).startswith("configuration: ")


def test_a_long_value_is_cut_and_a_hostile_one_is_escaped() -> None:
    """An error is one short line for any value."""
    with pytest.raises(ConfigError) as error:
        cfg.parse(f"[system]\nhz = '{'x' * 500}'".encode())
    assert len(str(error.value)) < 130 and str(error.value).endswith("...")
    with pytest.raises(ConfigError) as error:
        cfg.parse(b'[system]\nhz = "a\\u001b[31m\\nb"')
    assert "\\u001b" in str(error.value) and "\n" not in str(error.value)


def test_comments_of_the_stress_bands_are_their_own() -> None:
    """Its bands are sums of points, not multiples of a fair share."""
    text = cfg.to_toml(Config())
    stress = text[text.index("[scoring.stress.bands]"):].split("\n\n")[0]
    assert "fair share" in text and "fair share" not in stress


def test_tables_of_rules_are_left_to_the_rules() -> None:
    """One file can hold both: the configuration passes over what rogue_hunter.rules reads, and only at the top."""
    data = b"[[rules]]\nname = 'x'\n[safety]\nmin_pid = 2000\n[system]\nhz = 5\n[reap]\nmode = 'armed'\n"
    made = cfg.parse(data)
    assert (made.system.hz, made.reap.mode) == (5.0, "armed")
    assert Config().reap.mode == "observe"
    with pytest.raises(ConfigError, match=r"system\.rules: unknown key"):
        cfg.parse(b"[system]\nrules = []\n")
    with pytest.raises(ConfigError, match=r"reap\.mode: must be one of observe, armed"):
        cfg.parse(b"[reap]\nmode = 'kill'\n")


def test_one_key_changes_one_thing() -> None:
    """What is not in the file keeps its default; whole numbers stand for numbers."""
    config = cfg.parse(b"[system]\nhz = 10\n[scoring.stress.bands]\nhigh = 60\n[rogue_selection]\nstates = []\n")
    assert config == replace(
        Config(),
        system=replace(Config().system, hz=10.0),
        scoring=replace(
            Config().scoring, stress=replace(Config().scoring.stress, bands=StressBands(high=60))
        ),
        rogue_selection=replace(Config().rogue_selection, states=()),
    )
    assert type(config.system.hz) is float


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0, "low"),
        (29, "low"),
        (30, "medium"),
        (44, "medium"),
        (45, "elevated"),
        (59, "elevated"),
        (60, "high"),
        (79, "high"),
        (80, "critical"),
        (100, "critical"),
    ],
)
def test_bands(score: int, band: str) -> None:
    """A band begins at its score."""
    bands = Config().bands
    assert bands.of(score) == band
    assert bands.start(band) <= score
    assert [bands.of(bands.start(b)) for b in BANDS] == list(BANDS)


def test_selected_states_exist() -> None:
    """The states that are always of interest are states that processes have."""
    assert set(Config().rogue_selection.states) <= set(STATES)


# -- files -----------------------------------------------------------------------------------------------------------


def test_load(tmp_path: Path) -> None:
    """A named file must exist; the user's own is read if it does."""
    mine = tmp_path / "config.toml"
    assert cfg.load(None) == cfg.load(None, mine) == Config()
    mine.write_text("[system]\nhz = 7\n")
    assert cfg.load(None, mine).system.hz == cfg.load(mine).system.hz == 7
    with pytest.raises(ConfigError, match=r"other\.toml: No such file"):
        cfg.load(tmp_path / "other.toml", mine)


def test_load_what_is_no_file(tmp_path: Path) -> None:
    """A directory, or a link that leads nowhere, in the place of the file is an error, not ignored."""
    with pytest.raises(ConfigError, match="a directory, not a file"):
        cfg.load(None, tmp_path)
    link = tmp_path / "config.toml"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="No such file"):
        cfg.load(None, link)


def test_load_below_what_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home of another user has no configuration for this one: the defaults are used."""

    def denied(path: object, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "lstat", denied)
    assert cfg.load(None, tmp_path / "config.toml") == Config()


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing configuration that cannot be read is an error."""
    file = tmp_path / "config.toml"
    file.write_text("")

    def denied(path: Path, *_: object, **_more: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ConfigError, match="Permission denied"):
        cfg.load(None, file)


def test_file_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """What rh-pipe does, and kills, must not be decided by another user."""
    file = tmp_path / "config.toml"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="other users may write to the file"):
        cfg.load(file)


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """A reader must not wait for a writer of the fifo, nor read a device without end."""
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        cfg.load(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        cfg.load(Path("/dev/zero"))
