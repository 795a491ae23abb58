"""Rule files: what they may say, what is refused and with which words, what a project may change."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.rules.backtest import check_examples
from rogue_hunter.rules.load import builtin, find_project, from_values, load, parse, user_file, user_rules
from rogue_hunter.rules.model import Example, RuleError, RuleSet
from rogue_hunter.rules.parse import narrow
from rogue_hunter.rules.patterns import Patterns

FIXTURES = Path(__file__).parent.parent / "fixtures" / "rules"
SPEC = Path(__file__).parent.parents[2] / "shared" / "spec" / "reaper.md"


def one(conditions: str, more: str = "") -> RuleSet:
    return parse(f'[[rules]]\nname = "r"\n{more}\n[rules.conditions]\n{conditions}\n'.encode(), "f.toml")


def matched(rules: RuleSet, name: str, **row: Any) -> bool:
    """Would the rule match such a process, whose numbers have been what they are since `held_s`?"""
    from rogue_hunter.rules.backtest import matches

    rule = next(r for r in rules.rules if r.name == name)
    held_s, orphan = row.pop("held_s", row.get("age_s", 0.0)), row.pop("orphan", None)
    return matches(rules, rule, Example(True, row, "", held_s, orphan), Patterns())


def spec_blocks() -> list[str]:
    if not SPEC.exists():
        pytest.skip(f"the specification is not here: {SPEC}")
    return re.findall(r"```toml\n(.*?)```", SPEC.read_text(), re.S)


class TestBuiltin:
    def test_every_example_comes_out_as_it_says(self) -> None:
        assert check_examples(builtin()) == []
        assert all({e.match for e in rule.examples} == {True, False} for rule in builtin().rules)

    def test_the_rules_in_order_of_evaluation(self) -> None:
        assert [r.name for r in builtin().rules] == ["infinite_loop", "zombie_test_binary", "hung_test", "memory_hog",
                                                     "disk_hog", "orphaned_monitor", "macos_cpu_limit",
                                                     "macos_wakeups_limit", "macos_writes_limit"]
        assert {r.action.type for r in builtin().rules if r.name.startswith("macos_")} == {"log"}

    @pytest.mark.parametrize("row", [
        {"command": "less", "exe": "/usr/bin/less", "cmdline": "less my_test.py"},
        {"command": "vim", "cmdline": "vim x.log"}, {"command": "nano", "cmdline": "nano /tmp/test_x"},
        {"command": "cargo", "exe": "/home/u/.cargo/bin/cargo", "cmdline": "cargo build --release"},
        {"command": "rustc", "cmdline": "rustc --test src/lib.rs"},
        {"command": "chrome", "exe": "/opt/google/chrome", "cmdline": "/opt/google/chrome --type=renderer"},
        {"command": "firefox-bin", "cmdline": "/usr/lib/firefox/firefox-bin -contentproc"},
        {"command": "code", "cmdline": "/usr/share/code/code my_test.py"},
        {"command": "sshd", "cmdline": "sshd: u@pts/0"}, {"command": "Google Chrome He", "exe":
         "/Applications/Google Chrome.app/Contents/Frameworks/Google Chrome Helper (Renderer)", "cmdline":
         "/Applications/Google Chrome.app/Contents/Frameworks/Google Chrome Helper (Renderer) --type=renderer"},
    ], ids=lambda row: row["command"])
    @pytest.mark.parametrize("cpu", [0.0, 100.0])
    def test_what_people_work_with_never_matches(self, row: dict[str, Any], cpu: float) -> None:
        for rule in (r for r in builtin().rules if r.action.type != "log"):
            assert not matched(builtin(), rule.name, **row, cpu_percent=cpu, age_s=90_000.0, disk_bytes_per_s=0.0,
                               memory_bytes=1), rule.name

    @pytest.mark.parametrize("cmdline", [
        "python3 -m http.server test_dir", "tail -f /tmp/x.log", "bash", "my_server test_x"])
    def test_what_waits_never_matches(self, cmdline: str) -> None:
        for rule in (r for r in builtin().rules if r.action.type != "log"):
            assert not matched(builtin(), rule.name, command=cmdline.partition(" ")[0], cmdline=cmdline,
                               cpu_percent=0.0, age_s=90_000.0, orphan=False), rule.name

    def test_the_incident_of_the_specification(self) -> None:
        """The processes that were found by hand that day."""
        for rule, command, exe, cmdline, cpu, age in (
            ("infinite_loop", "test_ch04_debug", "/tmp/test_ch04_debug", "/tmp/test_ch04_debug", 99.9, 5 * 3600),
            ("infinite_loop", "test_interp_001", "/home/n/target/debug/deps/test_interp_001_parser-acfc7de6",
             "/home/n/target/debug/deps/test_interp_001_parser-acfc7de6", 99.9, 86_400),
            ("zombie_test_binary", "test_ch04_debug", "/tmp/test_ch04_debug", "/tmp/test_ch04_debug", 99.9, 5 * 3600),
            ("hung_test", "cargo-nextest", "/home/n/.cargo/bin/cargo-nextest", "cargo-nextest nextest run --lib", 0.0,
             5 * 86_400),
            ("hung_test", "mutation_handle", "/home/n/target/debug/deps/mutation_handler_unit_tests-0a1",
             "/home/n/target/debug/deps/mutation_handler_unit_tests-0a1", 0.0, 3 * 86_400),
            ("orphaned_monitor", "tail", "/usr/bin/tail", "tail -f /tmp/sprint43_ignored.log", 0.0, 12 * 86_400),
        ):
            assert matched(builtin(), rule, command=command, exe=exe, cmdline=cmdline, cpu_percent=cpu,
                           age_s=float(age), orphan=True), (rule, command)


class TestSpecification:
    """The files in the specification load as they stand."""

    def test_the_default_configuration(self) -> None:
        block = next(b for b in spec_blocks() if "[daemon]" in b)
        rules = parse(block.encode(), "reaper.toml")
        assert [r.name for r in rules.rules] == ["infinite_loop", "zombie_test_binary", "hung_test", "orphaned_monitor"]
        assert rules.rule("infinite_loop").table == builtin().rule("infinite_loop").table
        assert "cursor" in rules.safety.whitelist and rules.safety.min_pid == 1000
        assert (rules.settings.log_file, rules.settings.log_max_bytes, rules.settings.log_keep) == (
            "~/.local/share/reaper/reaper.log", 100_000_000, 5)
        assert rules.settings.metrics_port == 9090 and rules.settings.notify and not rules.settings.dry_run

    def test_each_rule_and_all_of_them_with_the_configuration(self) -> None:
        blocks = spec_blocks()
        detection = [b for b in blocks if b.startswith("[[rules]]")]
        assert len(detection) == 4
        head = next(b for b in blocks if "[daemon]" in b).split("# Rules defined above")[0]
        rules = parse((head + "\n".join(detection)).encode())
        for block in detection:
            parse(block.encode())
        loop, monitor = rules.rule("infinite_loop"), rules.rule("orphaned_monitor")
        assert loop.table["duration_seconds"] == 300 and loop.action.signal == "SIGKILL"
        assert monitor.action.signal == "SIGTERM" and not monitor.action.notify
        assert matched(rules, "infinite_loop", command="test_ch04_debug", cpu_percent=99.9, age_s=600.0)
        assert not matched(rules, "infinite_loop", command="rustc", cpu_percent=99.9, age_s=600.0)
        assert matched(rules, "orphaned_monitor", command="tail", cmdline="tail -f /tmp/x.log", cpu_percent=0.0,
                       age_s=90_000.0)
        old = {"cpu_percent": 0.0, "age_s": 90_000.0}
        assert not matched(rules, "orphaned_monitor", command="vim", cmdline="vim x.log", **old)
        assert not matched(rules, "hung_test", command="less", cmdline="less my_test.py", **old)
        assert matched(rules, "hung_test", command="python3", cmdline="python3 my_test.py", **old)
        assert matched(rules, "zombie_test_binary", command="test_x", exe="/tmp/test_x", age_s=4000.0)

    def test_the_project_override(self, tmp_path: Path) -> None:
        block = next(b for b in spec_blocks() if "Override" in b)
        file = tmp_path / ".reaper.toml"
        file.write_text(block)
        file.chmod(0o600)
        rules = load(None, file)
        nextest = {"command": "cargo-nextest", "cpu_percent": 0.0}
        assert not matched(rules, "hung_test", **nextest, age_s=5 * 3600.0)
        assert matched(rules, "hung_test", **nextest, age_s=13 * 3600.0)
        assert not matched(rules, "hung_test", command="my_test", cpu_percent=0.0, age_s=13 * 3600.0)


class TestOwnFile:
    def test_every_table_and_nesting(self) -> None:
        rules = load(FIXTURES / "reaper.toml")
        assert check_examples(rules) == []
        assert [(r.name, r.enabled) for r in rules.rules] == [
            ("infinite_loop", True), ("hung_test", False), ("runaway_worker", True)]
        assert [r.name for r in rules.enabled] == ["infinite_loop", "runaway_worker"]
        assert rules.rule("hung_test") is None
        worker = rules.rule("runaway_worker")
        assert (worker.action.signal, worker.action.timeout_s, worker.action.fallback) == ("SIGKILL", 2.0, True)
        busy = {"cpu_percent": 151.0, "age_s": 60.0}
        assert matched(rules, "runaway_worker", command="python3", cmdline="queue run --all", **busy)
        assert not matched(rules, "runaway_worker", command="vi", cmdline="vi queue run", **busy)
        assert not matched(rules, "runaway_worker", command="worker", cmdline="worker --foreground", **busy)
        assert {"my-notebook", "systemd"} <= set(rules.safety.whitelist)
        assert rules.safety.min_pid == 2000 and rules.settings.metrics_port == 9191
        assert rules.sources == (str(FIXTURES / "reaper.toml"),)

    def test_without_rules_the_builtin_ones_stand(self) -> None:
        assert parse(b"[safety]\nmin_pid = 5000\n").rules == builtin().rules

    def test_a_wrong_example_is_reported(self) -> None:
        rules = one("cpu_percent_min = 50", '[[rules.example]]\nmatch = true\nwhy = "low"\ncpu_percent = 10\n')
        assert check_examples(rules) == ["f.toml: rule r: must match and does not: low"]

    def test_tables_of_the_configuration_are_skipped(self) -> None:
        assert parse(b"[system]\nhz = 5\n[safety]\nmin_pid = 4000\n").safety.min_pid == 4000
        with pytest.raises(RuleError, match="systm: unknown key; did you mean system"):
            parse(b"[systm]\n")
        with pytest.raises(RuleError, match="system: unknown key"):
            from_values({"system": {}}, others=())

    def test_one_of_the_users_files_holds_the_rules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        home = tmp_path / "rogue-hunter"
        home.mkdir()
        assert user_file() is None and user_rules() == builtin()
        (home / "config.toml").write_text("[system]\nhz = 5\n")
        (home / "reaper.toml").write_text("[safety]\nmin_pid = 3000\n")
        assert user_rules().safety.min_pid == 3000
        (home / "config.toml").write_text("[system]\nhz = 5\n[safety]\nmin_pid = 4000\n")
        with pytest.raises(RuleError, match=r"config.toml has a table safety, and .*reaper.toml exists too"):
            user_rules()
        (home / "reaper.toml").unlink()
        assert user_rules().safety.min_pid == 4000
        other = tmp_path / "other.toml"
        other.write_text("[system]\nhz = 5\n")
        assert user_rules(other).rules == builtin().rules and user_rules(other).safety == builtin().safety


BAD_CONDITIONS = {
    "cpu_percent_mn = 5": "rule r.conditions.cpu_percent_mn: unknown key; did you mean cpu_percent_min?",
    "cpu_percent_min = -1": "cpu_percent_min: must be at least 0, not -1",
    "cpu_percent_min = nan": "must be finite, not nan",
    "cpu_percent_min = inf": "must be finite, not inf",
    'cpu_percent_min = "90"': "cpu_percent_min: must be a number",
    "cpu_percent_min = true": "cpu_percent_min: must be a number",
    "score_min = 101": "from 0 to 100",
    "cpu_percent_min = 90\ncpu_percent_max = 5": "nothing can be both",
    "age_hours = -4": "age_hours: must be at least 0, not -4",
    'command_patterns = [""]': "command_patterns: an empty pattern hits everything",
    'command_patterns = ["  "]': "an empty pattern hits everything",
    "command_patterns = []": "at least one pattern",
    'command_patterns = "x"': "must be an array",
    "command_patterns = [5]": "a pattern must be a text",
    'command_patterns = ["("]': "bad pattern '('",
    'command_patterns = [".*"]': "hits every name",
    'command_patterns = ["x*"]': "hits every name",
    'cmdline_patterns = ["^"]': "hits every name",
    f'command_patterns = ["{"x" * 513}"]': "513 characters; at most 512",
    'exclude_patterns = ["^a"]': "has only exclusions",
    'exclude_patterns = [""]\nscore_min = 1': "an empty pattern",
    "duration_seconds = 60": "has only exclusions",
    "duration_seconds = 60\nage_hours = 1": "needs something to last",
    "duration_seconds = 1e9\nscore_min = 1": "duration_seconds: must be from 0 to 604800, not 1000000000.0",
    "not = { score_min = 1 }": "has only exclusions",
    "any = []": "at least one table",
    "any = [{}]": "at least one condition",
    "all = { score_min = 1 }": "must be an array of tables",
    "any = [{ foo = 1 }]": "any 1.foo: unknown key",
    'state = "zombie"': "state: must be one of running",
    "state = []": "must not be empty",
    'user = ""': "must not be empty",
    "orphan = 1": "must be true or false",
    'band_min = "severe"': "must be one of low",
    "any = [[{ score_min = 1 }]]": "must be an array of tables",
    "score_min = 1\nnot = " + "{ not = " * 9 + "{ score_min = 1 }" + " }" * 9: "nested deeper than 8",
    "": "has no conditions",
}


class TestErrors:
    @pytest.mark.parametrize(("conditions", "words"), BAD_CONDITIONS.items(), ids=[k[:40] for k in BAD_CONDITIONS])
    def test_conditions(self, conditions: str, words: str) -> None:
        with pytest.raises(RuleError, match=re.escape(words)) as error:
            one(conditions)
        assert str(error.value).startswith("f.toml: rule r") and "\n" not in str(error.value)

    @pytest.mark.parametrize(("text", "words"), [
        ('[[rules]]\nname = "mine"\n', "rule mine: has no conditions; a rule without conditions would match every"),
        ("[[rules]]\nenabled = true\n", "name: must be a text"),
        ('[[rules]]\nname = "a b"\nconditions = { score_min = 1 }', "a name is letters"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\n' * 2, "rule a: defined twice"),
        ('[[rules]]\nname = "a"\nprio = 1\nconditions = { score_min = 1 }', "unknown key; did you mean priority?"),
        ('[[rules]]\nname = "a"\npriority = "urgent"\nconditions = { score_min = 1 }', "must be one of critical"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\naction = { signal = "SIGHUP" }', "one of SIGTERM"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\naction = { timeout_seconds = 0 }', "from 0.1 to 600"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\nexample = [{ match = true }]', "at least one field"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\nexample = [{ match = true, pid = "1" }]', "be int"),
        ('[[rules]]\nname = "a"\nconditions = { score_min = 1 }\nexample = [{ match = true, cpu = 1 }]', "unknown key"),
        ("rules = []", "an empty list of rules"),
        ("rules = 5", "must be an array of tables"),
        ("[safty]\n", "safty: unknown key; did you mean safety?"),
        ("[safety]\nmin_pid = 0", "min_pid: must be from 1 to 4194304, not 0"),
        ("[safety]\nmin_pid = 1000.5", "must be a whole number"),
        ("[safety]\nprotect_shell_ancestors = false", "ancestors are always protected"),
        ('[safety]\nwhitelist_processes = "vim"', "must be an array of program names"),
        ('[safety]\nwhitelist_processes = [""]', "must not be empty"),
        ("[daemon]\nscan_interval_seconds = 0", "from 0.1 to 86400"),
        ("[metrics]\nhttp_port = 70000", "from 0 to 65535"),
        ('[metrics]\npath = "metrics"', "must begin with /"),
        ('[notifications]\nurgency = "loud"', "must be one of low, normal, critical"),
        ("safety = 5", "safety: must be a table"),
        ("x =", "f.toml: "),
    ])
    def test_files(self, text: str, words: str) -> None:
        with pytest.raises(RuleError) as error:
            parse(text.encode(), "f.toml")
        assert words in str(error.value)

    def test_bytes_that_are_no_text(self) -> None:
        with pytest.raises(RuleError, match="not UTF-8"):
            parse(b"\xff\xfe")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RuleError, match="No such file"):
            load(tmp_path / "none.toml")

    def test_a_file_that_is_no_file_or_too_large(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(RuleError, match="not a regular file"):
            load(tmp_path / "fifo")
        (tmp_path / "big").write_bytes(b"#" * 300_000)
        with pytest.raises(RuleError, match="larger than 256 KiB"):
            load(tmp_path / "big")


class TestProject:
    """A project's file comes with another author's repository: it can only protect more processes."""

    def narrowed(self, text: str, base: RuleSet | None = None) -> RuleSet:
        import tomllib

        return narrow(base or builtin(), tomllib.loads(text), ".reaper.toml")

    def test_it_narrows(self) -> None:
        import tomllib

        rules = narrow(builtin(), tomllib.loads((FIXTURES / "project.toml").read_text()), ".reaper.toml")
        assert rules.rule("infinite_loop") is None and rules.safety.min_pid == 3000
        assert {"fuzzer", "systemd"} <= set(rules.safety.whitelist)
        assert rules.sources == ("built-in rules", ".reaper.toml")
        row = {"command": "cargo-nextest", "cpu_percent": 1.0}
        assert matched(rules, "hung_test", **row, age_s=50_000.0)
        assert not matched(rules, "hung_test", **row, age_s=40_000.0)
        assert not matched(rules, "hung_test", **{**row, "cpu_percent": 3.0}, age_s=50_000.0)
        assert not matched(rules, "hung_test", command="pytest", cpu_percent=0.0, age_s=50_000.0)

    def test_it_may_end_in_a_dry_run(self) -> None:
        assert self.narrowed("[daemon]\ndry_run = true").settings.dry_run

    @pytest.mark.parametrize(("text", "words"), [
        ("[safety]\nmin_pid = 10", "min_pid: 10 is below 1000; a project can only raise it"),
        ("[safety]\nwhitelist_processes = []", "a project can add to the whitelist, not empty it"),
        ("[safety]\nprotect_shell_ancestors = false", "ancestors are always protected"),
        ("[safety]\nmax_per_run = 500", "max_per_run: 500 is above 20"),
        ("[safety]\nfoo = 1", "unknown key"),
        ("[daemon]\nenabled = true", "enabled: unknown key"),
        ('[logging]\nfile = "/dev/null"', "belongs into your own file"),
        ("[metrics]\nenabled = true", "belongs into your own file"),
        ('[[rules]]\nname = "new"\nconditions = { score_min = 1 }', "there is no rule 'new'; a project cannot add one"),
        ('[[rules]]\nname = "hung_test"\nconditions = { age_hours = 1 }', "would widen the rule, whose limit is 14400"),
        ('[[rules]]\nname = "hung_test"\nconditions = { age_seconds = 60 }', "60 would widen the rule"),
        ('[[rules]]\nname = "hung_test"\nconditions = { cpu_percent_max = 50 }', "would widen the rule, whose limit is 5"),
        ('[[rules]]\nname = "infinite_loop"\nconditions = { cpu_percent_min = 1 }', "rule, whose limit is 90"),
        ('[[rules]]\nname = "infinite_loop"\nconditions = { cpu_percent_min = 95, duration_seconds = 5 }',
         "5 would widen the rule, whose limit is 300"),
        ('[[rules]]\nname = "hung_test"\npriority = "critical"', "a project cannot raise it above high"),
        ('[[rules]]\nname = "hung_test"\naction = { signal = "SIGKILL" }', "a project cannot make it SIGKILL"),
        ('[[rules]]\nname = "hung_test"\naction = { timeout_seconds = 1 }', "1 is below 5"),
        ('[[rules]]\nname = "memory_hog"\naction = { type = "kill" }', "a project cannot make notify a kill"),
    ])
    def test_what_would_widen_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(RuleError, match=re.escape(words)):
            self.narrowed(text)

    def test_what_the_user_switched_off_stays_off(self) -> None:
        base = parse(b'[daemon]\ndry_run = true\n[[rules]]\nname = "hung_test"\nenabled = false\n')
        with pytest.raises(RuleError, match="cannot enable a rule that you disabled"):
            self.narrowed('[[rules]]\nname = "hung_test"\nenabled = true', base)
        with pytest.raises(RuleError, match="cannot end a dry run"):
            self.narrowed("[daemon]\ndry_run = false", base)
        assert not self.narrowed('[[rules]]\nname = "hung_test"\nconditions = { age_hours = 9 }', base).enabled

    def test_only_the_user_may_own_and_write_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / ".reaper.toml"
        file.write_text("[daemon]\ndry_run = true\n")
        for mode in (0o620, 0o602, 0o666):
            file.chmod(mode)
            with pytest.raises(RuleError, match=f"other users may write to the file .mode 0{mode:o}"):
                load(None, file)
        file.chmod(0o644)
        assert load(None, file).settings.dry_run
        link = tmp_path / "link.toml"
        link.symlink_to(file)
        with pytest.raises(RuleError, match="a symbolic link"):
            load(None, link)
        if os.geteuid() == 0:
            os.chown(file, 12345, 12345)
            with pytest.raises(RuleError, match="belongs to user 12345"):
                load(None, file)

    def test_it_is_found_above_but_not_in_directories_of_others(self, tmp_path: Path) -> None:
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        assert find_project(deep) is None
        (tmp_path / ".reaper.toml").write_text("")
        assert find_project(deep) == tmp_path / ".reaper.toml"
        (tmp_path / ".rogue-hunter.toml").write_text("")
        assert find_project(deep) == tmp_path / ".rogue-hunter.toml"
        if os.geteuid() == 0:
            os.chown(tmp_path, 12345, 12345)
            assert find_project(deep) is None
