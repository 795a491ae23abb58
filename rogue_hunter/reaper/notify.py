"""Telling a person on the desktop. Names of processes go out as data: argv without a shell, markup escaped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from rogue_hunter.rules.model import RuleSet, Settings
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, visible

PER_MINUTE = 6
"""More than this nobody reads; what is left out is said with the next one."""

SPAWN_S = 5.0
"""A desktop that does not answer within this time is not waited for."""

TITLE_WIDTH, BODY_WIDTH = 80, 240

_SCRIPT = ("-e", "on run argv", "-e", "display notification (item 2 of argv) with title (item 1 of argv)",
           "-e", "end run")


def spawn(argv: Sequence[str]) -> bool:
    """Run a command to its end, at most SPAWN_S. True when it went well."""
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=SPAWN_S, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def command(title: str, body: str, settings: Settings, platform: str) -> list[str]:
    """The command that shows a notification: osascript on macOS, else notify-send, whose body is markup."""
    title, body = clip(title, TITLE_WIDTH), clip(body, BODY_WIDTH)
    if platform == "darwin":
        return ["osascript", *_SCRIPT, title, body]
    import html  # with it come all named characters, 0.4 MB

    return ["notify-send", "--app-name=rogue-hunter", f"--urgency={settings.notify_urgency}",
            f"--expire-time={settings.notify_timeout_ms}", "--", title, html.escape(body, quote=False)]


class Notifier:
    """Shows notifications, at most PER_MINUTE a minute. `run` spawns a command line and says whether it went well."""

    def __init__(self, settings: Settings, *, run: Callable[[Sequence[str]], bool] = spawn,
                 clock: Callable[[], float] = time.monotonic, platform: str = sys.platform) -> None:
        self._settings, self._run, self._clock, self._platform = settings, run, clock, platform
        self._shown: deque[float] = deque()
        self._left_out = 0

    def show(self, title: str, body: str) -> bool:
        """Show one. False when it was left out or could not be shown."""
        if not self._settings.notify:
            return False
        now = self._clock()
        while self._shown and now - self._shown[0] >= 60:
            self._shown.popleft()
        if len(self._shown) >= PER_MINUTE:
            self._left_out += 1
            return False
        self._shown.append(now)
        if self._left_out:
            body, self._left_out = f"{body} (and {self._left_out} not shown)", 0
        return self._run(command(title, body, self._settings, self._platform))

    def match(self, match: Record) -> bool:
        """Show what a rule is about, if it wants that."""
        if not match.get("notify"):
            return False
        return self.show(f"{match['rule']}: {_who(match)}", str(match.get("reason", "")))

    def action(self, action: Record, rules: RuleSet) -> bool:
        """Show what the reaper did, if the rule wants that and something was done or seen. Of a rule that only asks to
        tell, that is the match."""
        rule = rules.rule(action["rule"])
        if rule is None or not rule.action.notify or action["outcome"] in ("already_gone", "zombie", "spared"):
            return False
        if rule.action.type != "kill":
            return self.match({**action, "notify": True})
        return self.show(f"{action['outcome']}: {_who(action)}", f"{action['rule']}: {action.get('reason', '')}")


def _who(record: Record) -> str:
    return f"{visible(str(record.get('command', '')))} [{record['pid']}]"
