"""What the reaper did, for people: one line an action, a summary, desktop notifications.

Names of processes are passed to the desktop as data: argv without a shell, markup escaped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from rogue_hunter.rules.model import RuleSet, Settings
from rogue_hunter.sampling.naming import called, name_of
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, visible

PER_MINUTE = 6
"""More than this is not read; how many were left out is shown with the next one."""

SPAWN_S = 5.0
"""How long to wait for a desktop that does not answer."""

TITLE_WIDTH, BODY_WIDTH = 80, 240

_SCRIPT = ("-e", "on run argv", "-e", "display notification (item 2 of argv) with title (item 1 of argv)",
           "-e", "end run")


def spawn(argv: Sequence[str]) -> bool:
    """Run a command, for at most SPAWN_S. True if it succeeded."""
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
    """Shows notifications, at most PER_MINUTE a minute. `run` runs a command line and returns whether it succeeded."""

    def __init__(self, settings: Settings, *, run: Callable[[Sequence[str]], bool] = spawn,
                 clock: Callable[[], float] = time.monotonic, platform: str = sys.platform) -> None:
        self._settings, self._run, self._clock, self._platform = settings, run, clock, platform
        self._shown: deque[float] = deque()
        self._left_out = 0

    def show(self, title: str, body: str) -> bool:
        """Show one. False if it was left out or could not be shown."""
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
        """Show a match, if its rule asks for that."""
        if not match.get("notify"):
            return False
        return self.show(f"{match['rule']}: {_who(match)}", str(match.get("reason", "")))

    def action(self, action: Record, rules: RuleSet) -> bool:
        """Show an action, if its rule asks for that and the process was not gone before. Of a rule that kills nothing,
        show the match."""
        rule = rules.rule(action["rule"])
        if rule is None or not rule.action.notify or action["outcome"] in ("already_gone", "zombie", "spared"):
            return False
        if rule.action.type != "kill":
            return self.match({**action, "notify": True})
        return self.show(f"{action['outcome']}: {_who(action)}", f"{action['rule']}: {action.get('reason', '')}")


def _who(record: Record) -> str:
    return f"{visible(called(str(record.get('command', '')), name_of(record)))} [{record['pid']}]"


_OUTCOMES = {"terminated": "terminated", "killed": "killed", "reniced": "got a lower priority", "stopped": "stopped",
             "frozen": "frozen", "already_gone": "had already exited",
             "zombie": "had already exited", "survived": "survived", "refused": "not killed", "spared": "not killed",
             "interrupted": "interrupted", "dry_run": "would be terminated", "declined": "not killed: you declined"}


def sentence(action: Record) -> str:
    """One action in a line: the process, the outcome, the reason."""
    name = f"{clip(str(action.get('command', '?')), 40)} [{action['pid']}]"
    words = f"{name} {_OUTCOMES[action['outcome']]}"
    if action["outcome"] in ("terminated", "killed"):
        words += f" by {visible(action['signal'])} after {action['wait_s']:.1f} s"
    detail = action.get("detail") if action["outcome"] not in ("terminated", "killed", "dry_run", "declined") else None
    if action["outcome"] == "dry_run" and str(action.get("detail", "")).startswith("would be"):
        words = f"{name} {visible(action['detail'])}"
    why = f"{visible(action['rule'])}: {clip(str(action.get('reason', '')), 120)}".rstrip(": ")
    return f"{words}: {clip(str(detail), 200)}" if detail else f"{words} ({why})"


def summary(actions: Sequence[Record]) -> str:
    """All actions of a run: how many of each outcome, and the CPU use that was freed."""
    counts = Counter(action["outcome"] for action in actions)
    freed = sum(action.get("cpu_recovered_percent", 0.0) for action in actions) / 100
    words = ", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in _OUTCOMES if counts[outcome])
    unit = "of a core" if freed < 1 else "cores"
    return words + (f"; freed {freed:.2f} {unit}" if freed > 0 else "")
