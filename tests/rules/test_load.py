"""Rule files: found, read, laid one over the other; every key's limits, and the words of every refusal."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.rules.load import (
    FILE_LIMIT,
    PROJECT_FILES,
    builtin,
    find_project,
    from_values,
    load,
    load_named,
    parse,
    whitelist,
)
from rogue_hunter.rules.model import PRIORITIES, RuleError, RuleSet, Settings
from rogue_hunter.rules.parse import place_in
from rogue_hunter.stream import wire


def refused(text: str) -> str:
    with pytest.raises(RuleError) as error:
        parse(text.encode(), "f.toml")
    return str(error.value)


def rule(name: str, more: str = "") -> str:
    return f'[[rules]]\nname = "{name}"\nconditions = {{ score_min = 1 }}\n{more}\n'


class TestSettings:
    @pytest.mark.parametrize(("table", "key", "field", "value", "expected"), [
        ("daemon", "enabled", "enabled", "false", False),
        ("daemon", "scan_interval_seconds", "scan_interval_s", "7.5", 7.5),
        ("daemon", "dry_run", "dry_run", "true", True),
        ("logging", "level", "log_level", '"error"', "error"), ("logging", "file", "log_file", '"~/x"', "~/x"),
        ("logging", "max_size_mb", "log_max_bytes", "1.5", 1_500_000),
        ("logging", "rotate_count", "log_keep", "9", 9),
        ("notifications", "enabled", "notify", "true", True),
        ("notifications", "urgency", "notify_urgency", '"low"', "low"),
        ("notifications", "timeout_ms", "notify_timeout_ms", "77", 77),
        ("metrics", "enabled", "metrics", "true", True), ("metrics", "http_port", "metrics_port", "8080", 8080),
        ("metrics", "path", "metrics_path", '"/m"', "/m"),
    ])
    def test_each_key_sets_one(self, table: str, key: str, field: str, value: str, expected: Any) -> None:
        settings = parse(f"[{table}]\n{key} = {value}\n".encode()).settings
        assert getattr(settings, field) == expected
        assert [name for name in Settings.__slots__ if getattr(settings, name) != getattr(Settings(), name)] == [field]

    @pytest.mark.parametrize(("table", "key", "low", "high", "outside"), [
        ("daemon", "scan_interval_seconds", 0.1, 86_400, (0.09, 86_400.1)),
        ("logging", "max_size_mb", 0.1, 10_000, (0.09, 10_000.1)), ("logging", "rotate_count", 1, 100, (0, 101)),
        ("notifications", "timeout_ms", 0, 600_000, (-1, 600_001)), ("metrics", "http_port", 0, 65_535, (-1, 65_536)),
        ("safety", "min_pid", 1, 4_194_304, (0, 4_194_305)), ("safety", "max_per_run", 1, 1000, (0, 1001)),
        ("safety", "max_per_rule_per_hour", 1, 1000, (0, 1001)),
    ])
    def test_every_number_has_its_limits(self, table: str, key: str, low: float, high: float,
                                         outside: tuple[float, ...]) -> None:
        for value in (low, high):
            parse(f"[{table}]\n{key} = {value}\n".encode())
        for value in outside:
            assert refused(f"[{table}]\n{key} = {value}\n") == \
                f"f.toml: {table}.{key}: must be from {low} to {high}, not {value}"

    @pytest.mark.parametrize(("text", "words"), [
        ("[daemon]\nenabled = 1", "daemon.enabled: must be true or false, not 1"),
        ("[daemon]\ndry_run = 0", "daemon.dry_run: must be true or false, not 0"),
        ('[daemon]\nscan_interval_seconds = "1"', "daemon.scan_interval_seconds: must be a number, not \"1\""),
        ('[logging]\nlevel = "loud"', "logging.level: must be one of debug, info, warning, error, not \"loud\""),
        ('[logging]\nfile = " "', "logging.file: must not be empty"),
        ("[logging]\nmax_size_mb = true", "logging.max_size_mb: must be a number, not true"),
        ("[logging]\nrotate_count = 1.0", "logging.rotate_count: must be a whole number, not 1.0"),
        ("[notifications]\nenabled = 1", "notifications.enabled: must be true or false, not 1"),
        ("[notifications]\nurgency = 1", "notifications.urgency: must be one of low, normal, critical, not 1"),
        ("[notifications]\ntimeout_ms = true",
         "notifications.timeout_ms: must be a whole number, not true"),
        ("[metrics]\nenabled = 1", "metrics.enabled: must be true or false, not 1"),
        ('[metrics]\npath = "metrics/"', "metrics.path: must begin with /"),
        ('[metrics]\npath = ""', "metrics.path: must not be empty"),
        ("[daemon]\nenable = true", "daemon.enable: unknown key; did you mean enabled?"),
        ("[logging]\nlevle = 1", "logging.levle: unknown key; did you mean level?"),
        ("[notifications]\nurgent = 1", "notifications.urgent: unknown key; did you mean urgency?"),
        ("[metrics]\nport = 1", "metrics.port: unknown key; did you mean http_port?"),
        ("[safety]\nmin_pids = 1", "safety.min_pids: unknown key; did you mean min_pid?"),
        ("daemon = 1", "daemon: must be a table, not 1"), ("logging = 1", "logging: must be a table, not 1"),
        ("notifications = 1", "notifications: must be a table, not 1"), ("metrics = 1", "metrics: must be a table, not 1"),
        ("[[safety]]", "safety: must be a table, not [{  }]"), ("[[metrics]]", "metrics: must be a table, not [{  }]"),
    ])
    def test_what_is_refused_and_where(self, text: str, words: str) -> None:
        assert refused(text) == f"f.toml: {words}"


class TestSafety:
    def test_the_users_own_names_come_after_the_builtin_ones_and_once(self) -> None:
        theirs = builtin().safety.whitelist
        rules = parse(f'[safety]\nwhitelist_processes = ["mine", "{theirs[3]}", "yours", "mine"]'.encode())
        assert rules.safety.whitelist == (*theirs, "mine", "yours")

    def test_each_number_is_kept_where_the_file_says_nothing(self) -> None:
        base = parse(b"[safety]\nmin_pid = 2000\nmax_per_run = 7\nmax_per_rule_per_hour = 3\n")
        assert (base.safety.min_pid, base.safety.max_per_run, base.safety.max_per_rule_per_hour) == (2000, 7, 3)
        assert parse(b"", base=base).safety == base.safety
        again = parse(b"[safety]\nmax_per_run = 9\nprotect_shell_ancestors = true\n", base=base).safety
        assert (again.min_pid, again.max_per_run, again.max_per_rule_per_hour) == (2000, 9, 3)

    @pytest.mark.parametrize(("line", "words"), [
        ('whitelist_processes = "vim"', "whitelist_processes: must be an array of program names"),
        ("whitelist_processes = [5]", "whitelist_processes: must be a text, not 5"),
        ('protect_shell_ancestors = "no"', "protect_shell_ancestors: must be true or false, not \"no\""),
        ("protect_shell_ancestors = false", "protect_shell_ancestors: ancestors are always protected; leave it true"),
        ("max_per_run = 5.0", "max_per_run: must be a whole number, not 5.0"),
    ])
    def test_what_is_refused(self, line: str, words: str) -> None:
        assert refused(f"[safety]\n{line}\n") == f"f.toml: safety.{words}"

    @pytest.mark.parametrize("bits", [63, 64, 65, 20_000])
    def test_a_number_of_any_length_is_refused_in_few_words(self, bits: int) -> None:
        """Python refuses to write one of more than 4,300 digits, and one of 100 is unreadable."""
        value = (1 << bits) - 1
        with pytest.raises(RuleError) as error:
            from_values({"safety": {"min_pid": value}})
        shown = str(value) if bits < 100 else "a number of 20000 bits"
        assert str(error.value) == f"rules: safety.min_pid: must be from 1 to 4194304, not {shown}"

    def test_a_list_of_names(self) -> None:
        assert whitelist(["a", "b c"], place_in("f")) == ("a", "b c") and whitelist([], place_in("f")) == ()


class TestRules:
    def test_they_replace_the_builtin_ones_in_order_of_priority_then_of_the_file(self) -> None:
        text = "".join(rule(f"{p}-{i}", f'priority = "{p}"') for i in (1, 2) for p in reversed(PRIORITIES))
        assert [r.name for r in parse(text.encode()).rules] == [f"{p}-{i}" for p in PRIORITIES for i in (1, 2)]

    def test_a_builtin_name_without_conditions_is_that_rule(self) -> None:
        first = builtin().rules[0]
        (found,) = parse(f'[[rules]]\nname = "{first.name}"\npriority = "low"\n'.encode()).rules
        assert found.table == first.table and found.action == first.action and found.priority == "low"
        other = RuleSet((parse(rule("mine").encode()).rules[0],))
        (found,) = parse(b'[[rules]]\nname = "mine"\n', base=other).rules
        assert found.table == {"score_min": 1}
        assert "has no conditions" in refused('[[rules]]\nname = "mine"\n')

    @pytest.mark.parametrize(("text", "words"), [
        (rule("a") + rule("b") + rule("a"), "rule a: defined twice"),
        (rule("a") + "[[rules]]\nenabled = true\n", "rules 2.name: must be a text, not None"),
        ("[[rules]]\nname = 5\n", "rules 1.name: must be a text, not 5"),
        (rule("a", "colour = 1"), "rules 1.colour: unknown key"),
        ("rules = []", "rules: an empty list of rules; leave it out for the built-in ones"),
        ("rules = 5", "rules: must be an array of tables, not 5"), ("rules = [5]", "rules: must be an array of tables, not [5]"),
    ])
    def test_what_is_refused_and_where(self, text: str, words: str) -> None:
        assert refused(text) == f"f.toml: {words}"

    def test_where_they_are_from(self) -> None:
        assert parse(b"").sources == ("rules",) and from_values({}).sources == ("rules",)
        assert parse(rule("a").encode(), "f.toml").sources == ("f.toml",)
        assert builtin().sources == ("built-in rules",) and builtin() is builtin()

    def test_other_tables_are_skipped(self) -> None:
        assert from_values({"theirs": 5}, others=("theirs",)).rules == builtin().rules
        with pytest.raises(RuleError, match=r"^rules: theirs: unknown key$"):
            from_values({"theirs": 5}, others=())


class TestReading:
    def test_the_users_file_else_the_builtin_rules(self, tmp_path: Path) -> None:
        config, missing = tmp_path / "c.toml", tmp_path / "none.toml"
        config.write_text(rule("mine"))
        assert load().sources == ("built-in rules",)
        assert load(config).rules[0].name == "mine" and load(config).sources == (str(config),)
        with pytest.raises(RuleError) as error:
            load(missing)
        assert str(error.value) == f"{missing}: No such file or directory"

    def test_it_is_no_larger_than_256_kib(self, tmp_path: Path) -> None:
        assert FILE_LIMIT == 262_144
        file = tmp_path / "f.toml"
        file.write_bytes(b"#" * FILE_LIMIT)
        assert load(file).rules == builtin().rules
        file.write_bytes(b"#" * (FILE_LIMIT + 1))
        with pytest.raises(RuleError) as error:
            load(file)
        assert str(error.value) == f"{file}: larger than 256 KiB"

    def test_the_users_own_file_may_be_a_link_to_one_that_no_other_user_may_write_to(self, tmp_path: Path) -> None:
        """A home under version control is made of links. Rules that others may change would end processes."""
        file, link = tmp_path / "f.toml", tmp_path / "link.toml"
        file.write_text(rule("mine"))
        link.symlink_to(file)
        file.chmod(0o644)
        assert load(link).rules[0].name == "mine" and load(file).file == str(file)
        for mode in (0o666, 0o620):
            file.chmod(mode)
            for named in (file, link):
                with pytest.raises(RuleError, match="other users may write to the file"):
                    load(named)

    def test_a_link_that_leads_nowhere_is_not_called_forbidden(self, tmp_path: Path) -> None:
        link = tmp_path / "link.toml"
        link.symlink_to(tmp_path / "none")
        with pytest.raises(RuleError) as error:
            load(link)
        assert str(error.value) == f"{link}: No such file or directory"

    @pytest.mark.parametrize("what", ["directory", "fifo"])
    @pytest.mark.usefixtures("patience")
    def test_it_is_a_file(self, tmp_path: Path, what: str) -> None:
        """A fifo is not waited for."""
        path = tmp_path / "f.toml"
        path.mkdir() if what == "directory" else os.mkfifo(path)
        for private in ({"config": path}, {"project": path}):
            with pytest.raises(RuleError) as error:
                load(**private)
            assert str(error.value) == f"{path}: " + ("a directory, not a file" if what == "directory" else
                                                      "not a regular file")

    def test_no_descriptor_is_left_open(self, tmp_path: Path) -> None:
        (tmp_path / "f.toml").write_bytes(b"")
        free = os.dup(0)
        os.close(free)
        load(tmp_path / "f.toml")
        for _ in range(2):
            with pytest.raises(RuleError):
                load(tmp_path)
        again = os.dup(0)
        os.close(again)
        assert again == free

    @pytest.mark.parametrize(("data", "words"), [
        (b"\xff", "f.toml: not UTF-8"), (b"x = ", "f.toml: "), (b"x = " + b"9" * 5000, "f.toml: "),
        (b"x = " + b"[" * 5000, "f.toml: ")])
    def test_what_is_no_toml(self, data: bytes, words: str) -> None:
        with pytest.raises(RuleError) as error:
            parse(data, "f.toml")
        assert str(error.value).startswith(words)


class TestProject:
    @staticmethod
    def project(tmp_path: Path, mode: int = 0o600) -> Path:
        file = tmp_path / ".reaper.toml"
        file.write_text("[daemon]\ndry_run = true\n")
        file.chmod(mode)
        return file

    @pytest.mark.parametrize(("mode", "good"), [
        (0o600, True), (0o644, True), (0o755, True), (0o601, True), (0o620, False), (0o602, False), (0o666, False)])
    def test_no_other_user_may_write_it(self, tmp_path: Path, mode: int, good: bool) -> None:
        file = self.project(tmp_path, mode)
        assert stat.S_IMODE(file.stat().st_mode) == mode
        if good:
            assert load(None, file).settings.dry_run and load(None, file).sources == ("built-in rules", str(file))
        else:
            with pytest.raises(RuleError) as error:
                load(None, file)
            assert str(error.value).startswith(f"{file}: other users may write to the file (mode {mode:04o})")

    def test_it_is_the_users_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = self.project(tmp_path)
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        os.chown(file, me + 2 if me == 0 else me, -1)
        with pytest.raises(RuleError) as error:
            load(None, file)
        assert str(error.value) == f"{file}: the file belongs to user {me + 2 if me == 0 else me}; it must be yours or root's"

    def test_it_is_no_link(self, tmp_path: Path) -> None:
        link = tmp_path / "link.toml"
        link.symlink_to(self.project(tmp_path))
        with pytest.raises(RuleError) as error:
            load(None, link)
        assert str(error.value) == f"{link}: a symbolic link; it must be the file itself"
        with pytest.raises(RuleError) as error:
            load(None, tmp_path / "none.toml")
        assert str(error.value) == f"{tmp_path / 'none.toml'}: No such file or directory"

    def test_its_names_and_which_counts(self, tmp_path: Path) -> None:
        assert PROJECT_FILES == (".rogue-hunter.toml", ".reaper.toml")
        assert find_project(tmp_path) is None
        (tmp_path / ".reaper.toml").symlink_to("nowhere")
        assert find_project(tmp_path) == tmp_path / ".reaper.toml"
        (tmp_path / ".rogue-hunter.toml").write_text("")
        assert find_project(tmp_path) == tmp_path / ".rogue-hunter.toml"

    def test_the_nearest_counts_and_the_path_need_not_be_whole(self, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        for folder in (tmp_path, deep.parent):
            (folder / ".reaper.toml").write_text("")
        assert find_project(deep) == deep.parent / ".reaper.toml"
        monkeypatch.chdir(deep)
        assert find_project(Path(".")) == deep.parent / ".reaper.toml"

    def test_directories_of_others_are_not_looked_into_but_for_the_first(self, tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
        """So that other users cannot plant one in /tmp. The working directory is the user's choice."""
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        (tmp_path / ".reaper.toml").write_text("")
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        assert find_project(deep) is None and find_project(tmp_path) == tmp_path / ".reaper.toml"

    def test_what_cannot_be_looked_into_holds_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(*_: object) -> bool:
            raise PermissionError

        monkeypatch.setattr(os.path, "lexists", denied)
        assert find_project(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 there")
def test_a_path_of_other_bytes_goes_into_records(tmp_path: Path) -> None:
    """A match and an action name the file of their rules."""
    file = tmp_path / os.fsdecode(b"r\xff.toml")
    file.write_text(rule("mine"))
    rules = load(file, None)
    assert wire.dumps([rules.file, rules.rules[0].source, *rules.sources]).count(b"r\\\\xff.toml") == 3
    assert load_named(rules.file, None, str(rules.digest)) == rules
    with pytest.raises(RuleError, match="changed since the match") as caught:
        load_named(rules.file, None, "0")
    assert wire.dumps(str(caught.value))
