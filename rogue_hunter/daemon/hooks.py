"""Hooks of rules: run a command, or post to a web address, when a process begins to match. Never on the beat."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rogue_hunter import __version__
from rogue_hunter.files import FileError, read_trusted
from rogue_hunter.rules.model import HOOKS, Action, Rule, web_address
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, shown_name
from rogue_hunter.text.format import clip
from rogue_hunter.worker import Worker

KEPT = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY",
        "WAYLAND_DISPLAY")
"""Variables of the environment that a command is given, besides PATH, RH_RULE and RH_PID."""

PATH = "/usr/local/bin:/usr/bin:/bin"

PRINTED = 4096
"""Bytes of output after which a command is ended: its output is not used."""

WAITING = 100
"""Hooks that may wait for the thread; further ones are dropped, which is logged."""

RETRY_S = (1.0, 5.0)
"""Waits before a web address is tried again, when it cannot be reached, is busy (429) or fails (5xx)."""

SECRET_LIMIT = 4096
"""Bytes of a file with an address or a token."""

Say = Callable[[str, str], object]
"""(level, message)."""

Post = Callable[[str, bytes, Mapping[str, str], float], int]
"""(address, body, headers, seconds) -> HTTP status. Raises OSError."""


class HookError(Exception):
    """A hook that did not work; the text says why, without secrets."""


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
    """POST `body`; the status of the answer. Redirects are not followed: they could lead anywhere. Raises OSError."""
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

    class Refuse(HTTPRedirectHandler):
        def redirect_request(self, *_args: object) -> None:
            """No redirect."""

    proxies = [ProxyHandler({})] if url.startswith("http://") else []    # this machine is reached without a proxy
    asked = Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310  # web_address checked the scheme
    try:
        with build_opener(Refuse, *proxies).open(asked, timeout=timeout_s) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


class Hooks:
    """Runs the hooks of rules in a thread, at most `per_hour` of each rule. What became of them is logged by `tell`,
    which the beat calls."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic, post: Post = post,
                 environ: Mapping[str, str] = os.environ) -> None:
        self._say, self._clock, self._post = say, clock, post
        self._environ = {"PATH": PATH, **{name: environ[name] for name in KEPT if name in environ}}
        self._ran: dict[str, deque[float]] = {}
        self._closing = threading.Event()
        self._worker: Worker[tuple[Rule, Record], None] = Worker("hooks", self._work, limit=WAITING)

    def match(self, rule: Rule, match: Record) -> None:
        """Run the hook of a rule for a match, if it has one and its limit allows that. Returns at once."""
        if rule.action.type not in HOOKS:
            return
        now, ran = self._clock(), self._ran.setdefault(rule.name, deque())
        while ran and now - ran[0] >= 3600:
            ran.popleft()
        if len(ran) >= rule.action.per_hour:
            self._say("warning", f"rule {rule.name}: its {rule.action.type} was not run, it ran {len(ran)} times in an "
                                 "hour (per_hour)")
            return
        ran.append(now)
        if not self._worker.submit((rule, match)):
            self._say("warning", f"rule {rule.name}: its {rule.action.type} was not run, too many wait")

    def tell(self) -> None:
        """Log the hooks that failed since the last call."""
        self._worker.collect()
        for (rule, _), error in self._worker.failures():
            self._say("warning", f"rule {rule.name}: its {rule.action.type} failed: {clip(str(error), 300)}")

    def close(self) -> None:
        """End the thread: a command that runs is given half a second."""
        self._closing.set()
        self._worker.close(0.7)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _work(self, job: tuple[Rule, Record]) -> None:
        rule, match = job
        if rule.action.type == "exec":
            self._exec(rule.action, match)
        else:
            self._webhook(rule.action, match)

    def _exec(self, action: Action, match: Record) -> None:
        from rogue_hunter.capture.command import Command, first_words  # most rules have no hook

        env = {**self._environ, "RH_RULE": match["rule"], "RH_PID": str(match["pid"])}
        command = Command(action.command, action.timeout_s, PRINTED, self._closing,
                          partial(subprocess.Popen, env=env, cwd="/"),  # type: ignore[arg-type]
                          given=wire.dumps(match) + b"\n")
        command.run()
        outcome = command.outcome
        if outcome.status not in ("ok", "limit"):
            raise HookError(f"{outcome.status}: {first_words(outcome)}" if outcome.status != "timeout" else
                            f"it ran longer than {action.timeout_s:g} s and was ended")

    def _webhook(self, action: Action, match: Record) -> None:
        url = _secret(action.url_file) if action.url_file else action.url
        if not web_address(url):
            raise HookError(f"{action.url_file}: no https address")
        headers = {"Content-Type": "application/json", "User-Agent": f"rogue-hunter/{__version__}"}
        if action.token_file:
            headers["Authorization"] = f"Bearer {_secret(action.token_file)}"
        body = wire.dumps({"text": text_of(match), **match})
        for wait in (*RETRY_S, None):
            try:
                status = self._post(url, body, headers, action.timeout_s)
                problem = f"status {status}"
            except OSError as error:
                status, problem = 0, str(getattr(error, "reason", error))
            if 200 <= status < 300:
                return
            if wait is None or (status and status != 429 and status < 500) or self._closing.wait(wait):
                raise HookError(problem)


def _secret(name: str) -> str:
    """The first line of a file that only its user can read. Raises HookError."""
    path = Path(name).expanduser()
    try:
        words = read_trusted(path, SECRET_LIMIT).decode("ascii").splitlines()
        if path.stat().st_mode & 0o077:
            raise HookError(f"{path}: other users may read it; chmod 600")
    except (FileError, OSError, ValueError) as error:
        raise HookError(str(error)) from None
    if not words or not words[0].strip().isprintable():
        raise HookError(f"{path}: its first line is not a text")
    return words[0].strip()


def text_of(match: Record) -> str:
    """A match in a line, for people."""
    name = clip(str(shown_name(match) or "?"), 80)
    return f"{match['rule']}: {name} [{match['pid']}]: {clip(str(match.get('reason', '')), 300)}"
