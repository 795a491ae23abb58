"""What is changed, and the quick tests that have to notice."""

from __future__ import annotations

_LINUX = ("test_host_linux.py", "test_host_linux_process.py", "test_host_linux_gate.py", "test_host_linux_describe.py")

TARGETS: dict[str, tuple[str, ...]] = {
    "reap/guards": ("reap/test_guards.py", "reap/test_run.py"),
    "reap/identity": ("reap/test_identity.py", "reap/test_guards.py", "reap/test_run.py"),
    "reap/judge": ("reap/test_judge.py", "reap/test_run.py"),
    "reap/linux": ("reap/test_linux.py",),
    "reap/candidate": ("reap/test_candidate.py", "reap/test_run.py"),
    "reap/escalate": ("reap/test_run.py", "reap/test_escalate.py"),
    "reap/budget": ("reap/test_budget.py", "reap/test_run.py"),
    **{f"rules/{name}": (f"test_rules_{name}.py", "test_rules.py", "test_match.py") for name in (
        "conditions", "family", "logic", "model", "patterns", "program", "subject", "window")},
    "rules/narrow": ("test_rules_narrow.py", "test_rules.py"),
    "rules/parse": ("test_rules_parse.py", "test_rules.py", "test_match.py"),
    "rules/load": ("test_rules_load.py", "test_rules.py"),
    **{f"rules/{name}": (f"test_rules_{name}.py",) for name in ("backtest", "examples", "explain", "user")},
    "match": ("test_match.py",),
    "score/share": ("test_score_share.py",),
    "score/stress": ("test_score_stress.py",),
    "score/select": ("test_score_select.py",),
    "score/__init__": ("test_score_stress.py",),
    "wire": ("test_wire.py",),
    "host/linux/__init__": ("test_host_linux_table.py", *_LINUX),
    "host/linux/table": ("test_host_linux_table.py", "test_host_linux.py"),
    "host/linux/newcomers": ("test_host_linux_table.py", "test_host_linux.py"),
    "host/linux/process": (_LINUX[1], _LINUX[0]),
    "host/linux/boot": ("test_host_linux_machine.py", "test_host_linux.py"),
}
"""Module below rogue_hunter -> test files below tests, those that notice most first."""
