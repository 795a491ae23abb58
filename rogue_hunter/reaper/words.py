"""What the reaper did, in a line for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, visible

_DONE = {"terminated": "ended", "killed": "killed", "already_gone": "had ended by itself", "zombie": "is dead already",
         "survived": "survived", "refused": "left alone", "spared": "spared", "interrupted": "interrupted",
         "dry_run": "would be ended", "declined": "left alone, as you said"}


def sentence(action: Record) -> str:
    """One action: who, what came of it, why."""
    who = f"{clip(str(action.get('command', '?')), 40)} [{action['pid']}]"
    words = f"{who} {_DONE[action['outcome']]}"
    if action["outcome"] in ("terminated", "killed"):
        words += f" by {visible(action['signal'])} after {action['wait_s']:.1f} s"
    reason = action.get("detail") if action["outcome"] in ("refused", "survived", "spared", "already_gone") else None
    why = " ".join(filter(None, [visible(action["rule"]) + ":", clip(str(action.get("reason", "")), 120)]))
    return f"{words}: {clip(str(reason), 200)}" if reason else f"{words} ({why.rstrip(':')})"


def summary(actions: Sequence[Record]) -> str:
    """All actions of a run: how many of each outcome, and the CPU use that was given back."""
    counts = Counter(action["outcome"] for action in actions)
    recovered = sum(action.get("cpu_recovered_percent", 0.0) for action in actions)
    words = ", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in _DONE if counts[outcome])
    return words + (f"; {recovered:.0f} % CPU given back" if recovered > 0 else "")
