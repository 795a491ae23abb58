"""Why a rule matched, in words and as data."""

from __future__ import annotations

from rogue_hunter.rules.subject import Term
from rogue_hunter.text.format import duration


def evidence(terms: list[Term]) -> str:
    """The weakest proof among the conditions that last; `reading` when none does."""
    kinds = {term["evidence"] for term in terms}
    return "lifetime" if "lifetime" in kinds else "window" if "window" in kinds else "reading"


def reason(terms: list[Term], age_s: float | None) -> str:
    """The conditions that held, in words: `cpu 99.9 % for 5m 00s; age 5h 12m`."""
    parts = [_phrase(term) for term in terms if term["condition"] not in ("age_hours", "age_seconds")]
    if age_s is not None:
        parts.append(f"age {duration(age_s)}")
    return "; ".join(parts)


_UNITS = {"cpu_percent_min": ("cpu", " %"), "cpu_percent_max": ("cpu only", " %"), "memory_mb_min": ("memory", " MB"),
          "disk_mb_per_s_min": ("disk", " MB/s"), "gpu_percent_min": ("gpu", " %"),
          "wakeups_per_s_min": ("wakeups", "/s"), "score_min": ("score", ""), "band_min": ("band", "")}


def _phrase(term: Term) -> str:
    kind, value = term["condition"], term["value"]
    if kind in _UNITS:
        word, unit = _UNITS[kind]
        text = f"{word} {value if isinstance(value, str) else f'{value:g}'}{unit}"
    elif kind == "orphan":
        text = "its parent died" if value else "its parent lives"
    elif kind in ("command_patterns", "cmdline_patterns"):
        text = f"called like {term['limit']}"
    else:
        text = f"{kind} {value}"
    if "window_s" in term:
        text += f" for {duration(term['held_s'])}" if term["evidence"] == "window" else \
            f" on average over {duration(term['held_s'])} of life" if term["evidence"] == "lifetime" else ""
    return text
