"""Hooks of rules: what a command is given and when it is ended, what is posted and how often, and that the beat waits for
neither."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rogue_hunter.daemon.hooks import Hooks, post
from rogue_hunter.rules.load import parse, rules_toml
from rogue_hunter.rules.model import Rule, RuleError, RuleSet, web_address
from rogue_hunter.rules.parse import narrow

pytestmark = pytest.mark.waits

MATCH = {"type": "match", "v": 1, "rule": "r", "pid": 4001, "command": "x\x1b[2J", "reason": "cpu 99 %"}


def rules(action: str) -> RuleSet:
    return parse(f'[[rules]]\nname = "r"\nconditions = {{ cpu_percent_min = 50 }}\naction = {{ {action} }}\n'.encode())


def rule(action: str) -> Rule:
    return rules(action).rules[0]


class Ran:
    """Hooks with a clock that is set, and what they logged."""

    def __init__(self, **more: Any) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.hooks = Hooks(lambda level, message: self.said.append(message), lambda: self.now, **more)

    def run(self, rule: Rule, **match: Any) -> list[str]:
        """What is logged once the hook is done."""
        self.hooks.match(rule, {**MATCH, **match})
        assert self.hooks._worker.wait(30)
        self.hooks.tell()
        return self.said


@pytest.fixture
def ran() -> Iterator[Callable[..., Ran]]:
    made: list[Ran] = []

    def start(**more: Any) -> Ran:
        made.append(Ran(**more))
        return made[-1]

    yield start
    for each in made:
        each.hooks.close()


def script(tmp_path: Path, code: str) -> str:
    """An action that runs Python code."""
    file = tmp_path / "hook.py"
    file.write_text(code)
    return f'type = "exec", command = ["{sys.executable}", "{file}", "$HOME; rm x"]'


def test_a_command_gets_the_match_and_a_clean_environment(tmp_path: Path, ran: Callable[..., Ran]) -> None:
    """By argv, without a shell; the match as JSON on standard input."""
    out = tmp_path / "out"
    action = script(tmp_path, f"import sys, os, json; json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ), "
                              f"os.getcwd()], open({str(out)!r}, 'w'))")
    made = ran(environ={"HOME": "/h", "PATH": "/evil", "LD_PRELOAD": "x.so", "SECRET": "s", "LANG": "C.UTF-8"})
    assert made.run(rule(action)) == []
    argv, match, env, place = json.loads(out.read_text())
    assert (argv, match, place) == (["$HOME; rm x"], MATCH, "/")
    assert {k: v for k, v in env.items() if k != "LC_CTYPE"} == {
        "HOME": "/h", "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin", "RH_RULE": "r", "RH_PID": "4001"}


def test_a_command_that_fails_or_takes_too_long_is_reported(tmp_path: Path, ran: Callable[..., Ran]) -> None:
    failing = script(tmp_path, "import sys; sys.exit('no \\x1b[2J disk')")
    assert ran().run(rule(failing)) == ["rule r: its exec failed: failed: no \\x1b[2J disk"]
    slow = script(tmp_path, "import time; time.sleep(60)") + ", timeout_seconds = 0.2"
    began = time.monotonic()
    assert ran().run(rule(slow)) == ["rule r: its exec failed: it ran longer than 0.2 s and was ended"]
    assert time.monotonic() - began < 20
    assert "not found" in ran().run(rule('type = "exec", command = ["/no/such"]'))[0]


def test_a_hook_has_a_limit_an_hour_for_each_rule(tmp_path: Path, ran: Callable[..., Ran]) -> None:
    done: list[str] = []
    made = ran(post=lambda url, *_: done.append(url) or 200)
    limited = rule('type = "webhook", url = "https://h.example/x", per_hour = 2')
    for _ in range(4):
        made.run(limited)
    assert len(done) == 2 and made.said == ["rule r: its webhook was not run, it ran 2 times in an hour (per_hour)"] * 2
    made.now = 3601.0
    made.run(limited)
    assert len(done) == 3


def test_the_beat_does_not_wait(tmp_path: Path, ran: Callable[..., Ran]) -> None:
    """A hundred hooks that hang cost the beat nothing, and further ones are dropped with a word."""
    gate = threading.Event()
    made = ran(post=lambda *_: gate.wait(30) and 200)
    began = time.thread_time()
    for _ in range(150):
        made.hooks.match(rule('type = "webhook", url = "https://h.example/x", per_hour = 10000'), MATCH)
    assert time.thread_time() - began < 1.0
    assert "too many wait" in made.said[0]
    gate.set()


class Web(http.server.BaseHTTPRequestHandler):
    """Answers with the statuses of `answers`, the last one again and again; keeps what it was sent."""

    answers: ClassVar[list[int]] = []
    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        type(self).got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        if status in (301, 307):
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a web server on this machine."""
    Web.answers, Web.got = [200], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_match_is_posted_as_json_with_a_text(web: str, ran: Callable[..., Ran], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    assert ran().run(rule(f'type = "webhook", url = "{web}", token_file = "{token}"')) == []
    (headers, body), = Web.got
    assert headers["Authorization"] == "Bearer s3cret" and headers["Content-Type"] == "application/json"
    assert json.loads(body) == {**MATCH, "text": "r: x\\x1b[2J [4001]: cpu 99 %"}


def test_an_address_in_a_file_and_secrets_that_others_can_read(web: str, ran: Callable[..., Ran], tmp_path: Path) -> None:
    """Neither address nor token is ever logged."""
    file = tmp_path / "url"
    file.write_text(web + "?key=s3cret\n")
    file.chmod(0o600)
    hook = rule(f'type = "webhook", url_file = "{file}"')
    assert ran().run(hook) == [] and len(Web.got) == 1
    file.chmod(0o644)
    (said,) = ran().run(hook)
    assert "other users may read it" in said and "s3cret" not in said
    file.chmod(0o600)
    file.write_text("ftp://x/s3cret")
    (said,) = ran().run(hook)
    assert "no https address" in said and "s3cret" not in said


@pytest.mark.parametrize(("answers", "tries", "problem"), [
    ([503, 429, 200], 3, None), ([503], 3, "status 503"), ([404], 1, "status 404"), ([301], 1, "status 301"),
    ([307], 1, "status 307"),
])
def test_what_may_pass_is_tried_again_and_redirects_are_not_followed(
        web: str, ran: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, answers: list[int], tries: int,
        problem: str | None) -> None:
    monkeypatch.setattr("rogue_hunter.daemon.hooks.RETRY_S", (0.01, 0.01))
    Web.answers = answers
    said = ran().run(rule(f'type = "webhook", url = "{web}"'))
    assert len(Web.got) == tries
    assert said == ([] if problem is None else [f"rule r: its webhook failed: {problem}"])


def test_an_address_that_does_not_answer(ran: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rogue_hunter.daemon.hooks.RETRY_S", (0.01, 0.01))
    (said,) = ran().run(rule('type = "webhook", url = "http://127.0.0.1:1/x"'))
    assert "refused" in said
    with pytest.raises(OSError, match="refused"):
        post("http://127.0.0.1:1/", b"", {}, 1.0)


@pytest.mark.parametrize(("url", "good"), [
    ("https://hooks.example.org/a/b?c=d", True), ("http://127.0.0.1:8080/x", True), ("http://localhost", True),
    ("http://[::1]:80/", True), ("http://example.org/", False), ("https://user@host/", False), ("file:///etc/passwd", False),
    ("http://127.0.0.1.evil.example/", False), ("http://localhost@evil.example/", False), ("https://", False),
    ("https://x y/", False), ("https://x/\n", False), ("https://\u0430pple.example/", False),
])
def test_addresses(url: str, good: bool) -> None:
    assert web_address(url) is good


@pytest.mark.parametrize(("action", "words"), [
    ('type = "exec"', "exec needs `command`"), ('type = "exec", command = ["ls"]', "absolute path"),
    ('type = "exec", command = []', "must not be empty"), ('type = "exec", command = ["/x"], url = "https://x/"', "url"),
    ('type = "webhook"', "needs `url` or `url_file`"), ('type = "webhook", url = "http://x/"', "https"),
    ('type = "webhook", url = "https://x/", url_file = "y"', "not both"), ('type = "log", command = ["/x"]', "command"),
    ('type = "exec", command = ["/x"], per_hour = 0', "per_hour"), ('type = "renice", nice = 0', "nice"),
    ('type = "renice", nice = -5', "nice"), ('type = "stop", seconds = 4000', "seconds"),
    ('type = "stop", timeout_seconds = 5', "timeout_seconds"), ('type = "burn"', "burn"),
])
def test_an_action_that_cannot_be_meant_is_an_error(action: str, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        rules(action)


@pytest.mark.parametrize("action", [
    'type = "exec", command = ["/bin/x", "a b"], timeout_seconds = 3.0, per_hour = 7', 'type = "stop", seconds = 5.0',
    'type = "webhook", url_file = "~/u", token_file = "~/t"', 'type = "renice", nice = 19', 'type = "freeze"', 'type = "log"',
])
def test_rules_are_written_as_they_were_read(action: str) -> None:
    made = rules(action)
    again = parse(rules_toml(made).encode())
    assert again.rules[0].action == made.rules[0].action


@pytest.mark.parametrize("own", ["kill", "log", "notify", "renice", "stop"])
@pytest.mark.parametrize("theirs", [
    {"type": "exec", "command": ["/bin/x"]}, {"type": "webhook", "url": "https://x/"}, {"type": "freeze"}, {"type": "kill"},
    {"type": "stop", "seconds": 3600}, {"type": "renice", "nice": 19}])
def test_a_project_cannot_make_an_action_another_or_harsher(own: str, theirs: dict[str, Any]) -> None:
    """A file that comes with a cloned repository runs nothing and touches no more processes."""
    given = {"rules": [{"name": "r", "action": theirs}]}
    if (own, theirs) == ("kill", {"type": "kill"}):
        assert narrow(rules(f'type = "{own}"'), given, "p").rules[0].action.type == "kill"
        return
    with pytest.raises(RuleError):
        narrow(rules(f'type = "{own}"'), given, "p")


def test_a_project_can_quieten_a_hook_and_not_change_it() -> None:
    mine = rules('type = "exec", command = ["/bin/x"]')
    quiet = narrow(mine, {"rules": [{"name": "r", "action": {"type": "log"}}]}, "p").rules[0].action
    assert (quiet.type, quiet.command) == ("log", ())
    with pytest.raises(RuleError, match="cannot change what exec runs"):
        narrow(mine, {"rules": [{"name": "r", "action": {"type": "exec", "command": ["/bin/y"]}}]}, "p")


@pytest.mark.slow
def test_rh_pipe_runs_a_hook_once_for_a_process_and_touches_nothing(
        spawn: Callable[..., Any], clean_env: dict[str, str], burn: Callable[[], int], tmp_path: Path) -> None:
    """In observe mode: the hook is the user's own program. The match is repeated each minute; the hook is not."""
    pid, out = burn(), tmp_path / "out"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {out}\n")
    hook.chmod(0o755)
    config = tmp_path / "rules.toml"
    config.write_text('[[rules]]\nname = "loop"\nconditions = { cpu_percent_min = 5, cmdline_patterns = ["kill -0 .PPID"] }\n'
                      f'action = {{ type = "exec", command = ["{hook}"] }}\n')
    pipe = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "-q", "-c", config, "--db", tmp_path / "x.db",
                  "--no-socket"], env=clean_env)
    deadline = time.monotonic() + 60
    while not (out.exists() and any(json.loads(line)["pid"] == pid for line in out.read_text().splitlines())):
        assert time.monotonic() < deadline and pipe.poll() is None
        time.sleep(0.1)
    time.sleep(1.5)     # four more ticks, in which it still matches
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(each["pid"] == pid for each in found) == 1 and found[0]["rule"] == "loop"
    assert Path(f"/proc/{pid}").exists()
