"""The records of the reaper: what a rule says of a process, and what was done about it.

process record's own fields, as they were when the rule decided.
"""

from __future__ import annotations

from dataclasses import replace

from rogue_hunter.schema.field import Field
from rogue_hunter.schema.sampling import PROCESS

EVIDENCES = ("window", "lifetime", "reading")
"""window: the condition held in nine tenths of its window. lifetime: the average over the process's life, where no
history was seen. reading: the rule asks for nothing that lasts."""

PRIORITIES = ("critical", "high", "medium", "low")

ACTIONS = ("kill", "renice", "stop", "freeze", "notify", "log", "exec", "webhook")

OUTCOMES = ("terminated", "killed", "reniced", "stopped", "frozen", "already_gone", "zombie", "survived", "refused",
            "spared", "interrupted", "dry_run", "declined")
"""terminated: gone after SIGTERM. killed: gone after SIGKILL. reniced: its priority was lowered. stopped, frozen: it,
or its control group, does not run and continues by itself. already_gone: nothing was sent, it had ended by itself.
zombie: nothing was sent, it is dead and waits for its parent to collect it. survived: still there after everything
that may be sent. refused: a protection forbids it. spared: it is no longer what was judged. interrupted: SIGTERM was
sent, then a person or the end of the program stopped the wait; SIGKILL was not sent. dry_run: what would have been
signalled. declined: the person who was asked declined."""

REFUSALS = ("not_my_uid", "root", "low_pid", "self", "ancestor", "session_leader", "rogue_hunter", "kernel_thread",
            "thread", "whitelist", "no_audit", "no_pidfd", "unreadable", "too_young", "stale", "no_rule", "not_a_kill",
            "over_budget", "disarmed", "busy", "rules_file", "stopped", "foreground")
"""Why a process was not signalled; see rogue_hunter.reaper.guards for each."""

METHODS = ("pidfd", "audittoken", "kill")

_f = Field

_ROW = {f.name: f for f in PROCESS}


def _of_process(*names: str) -> tuple[Field, ...]:
    return tuple(replace(_ROW[name], metric=False) for name in names)


_WHO = _of_process("pid", "start_ticks", "start_time", "ppid", "uid", "user", "command", "exe", "cmdline", "cgroup",
                   "tty")
_HOW = _of_process("state", "threads", "age_s", "cpu_seconds_total", "cpu_percent", "memory_bytes", "disk_bytes_per_s",
                   "gpu_ms_per_s", "wakeups_per_s", "score", "band")

MATCH = (
    _f("ts", float, "s", "epoch seconds of the tick that decided", "match", required=True),
    _f("seq", int, "", "number of that tick", "match"),
    _f("boot_id", str, "", "identity of the boot", "match", required=True),
    *_WHO,
    _f("rule", str, "", "name of the rule; of those that match, the one of the highest priority", "match",
       required=True),
    _f("priority", str, "", "its priority", "match", required=True, choices=PRIORITIES),
    _f("rules_file", str, "", "absolute path of the user's file of rules; left out for the built-in rules", "match"),
    _f("rules_project", str, "", "absolute path of the project's file, if one narrows the rules", "match"),
    _f("rules_sha256", str, "", "SHA-256 of the content of these files, or of the built-in rules", "match"),
    _f("also", list, "", "names of the other rules that match", "match"),
    _f("action", str, "", "what the rule asks for", "match", required=True, choices=ACTIONS),
    _f("notify", bool, "", "whether the rule asks for a notification", "match"),
    _f("log_level", str, "", "how loudly the rule wants it logged", "match"),
    _f("reason", str, "", "why, in words", "match", required=True),
    _f("evidence", str, "", "what proved it", "match", required=True, choices=EVIDENCES),
    _f("evidence_terms", list, "", "each condition that held: condition, limit, value, evidence, window_s, held_s",
       "match"),
    _f("matched_s", float, "s", "how long the rule has matched without a break", "match"),
    _f("orphan", bool, "", "whether its parent died", "match"),
    _f("orphan_of", str, "", "the parent that died, `command[pid]`, where it was seen alive", "match"),
    *_HOW,
)

ACTION = (
    _f("ts", float, "s", "epoch seconds of the decision", "reap", required=True),
    _f("boot_id", str, "", "identity of the boot", "reap", required=True),
    *_WHO,
    _f("rule", str, "", "name of the rule; `manual` when a person named the process", "reap", required=True),
    _f("priority", str, "", "its priority", "reap", choices=PRIORITIES),
    _f("reason", str, "", "why the process was judged", "reap"),
    _f("evidence", str, "", "what proved it", "reap", choices=(*EVIDENCES, "person")),
    _f("outcome", str, "", "the outcome", "reap", required=True, choices=OUTCOMES),
    _f("refusals", list, "", "why it was not signalled: the code of each reason", "reap"),
    _f("detail", str, "", "the outcome in words", "reap"),
    _f("signals", list, "", "signals sent, in order", "reap"),
    _f("signal", str, "", "the last signal sent", "reap"),
    _f("method", str, "", "how the signal was tied to the process", "reap", choices=METHODS),
    _f("race_window_s", float, "s", "time between the last look at the process and the signal, where they are not tied",
       "reap", platforms="macos"),
    _f("wait_s", float, "s", "time from the first signal to the end of the process, or of the wait", "reap"),
    _f("dry_run", bool, "", "whether nothing was to be sent", "reap", required=True),
    _f("cpu_recovered_percent", float, "%", "CPU use before the signal less CPU use after; 100 = one core", "reap"),
    _f("bundle", dict, "", "what the process was doing just before the signal: wchan, stack, open files, threads",
       "reap"),
    _f("host", str, "", "host name", "reap"),
    _f("config_file", str, "", "files the rules came from", "reap"),
    _f("run", str, "", "identity of the run of the reaper", "reap"),
    _f("audit_seq", int, "", "number of the last line about it in the audit file", "reap"),
    *_HOW,
)

RULE = (
    _f("name", str, "", "its name", "match", required=True),
    _f("priority", str, "", "its priority; the matching rule with the highest is reported", "match", required=True,
       choices=PRIORITIES),
    _f("enabled", bool, "", "whether it is in use", "match", required=True),
    _f("action", str, "", "its action", "match", required=True, choices=ACTIONS),
    _f("signal", str, "", "SIGKILL: one second after SIGTERM, in place of `timeout_s`", "match",
       choices=("SIGTERM", "SIGKILL")),
    _f("timeout_s", float, "s", "how long SIGTERM has", "match"),
    _f("fallback", bool, "", "whether SIGKILL follows", "match"),
    _f("notify", bool, "", "whether it sends a notification", "match"),
    _f("conditions", dict, "", "its conditions, as the file gives them", "match", required=True),
    _f("examples", int, "", "examples that go with it; `rh-config validate` tries them", "match"),
    _f("source", str, "", "the file it was read from", "match", required=True),
)

_EVENT = {f.name: replace(f, stage="match") for f in MATCH}

FIRING = (
    _f("ts", float, "s", "epoch seconds at which the rule would have matched first", "match", required=True),
    *(_EVENT[name] for name in ("boot_id", "pid", "start_ticks", "command", "rule", "priority", "action", "reason",
                                "evidence")),
    _f("cpu_seconds_saved", float, "s", "CPU time that it used from then on, as far as it was recorded", "match",
       required=True),
    _f("ended", str, "", "how its event ended, as in `event`; absent while it is open", "match"),
    _f("regret", str, "", "why a person might have been sorry; absent when nothing speaks for it", "match"),
)

BACKTEST = (
    _f("rule", str, "", "name of the rule", "match", required=True),
    _f("since", float, "s", "epoch seconds from which history was read", "match", required=True),
    _f("until", float, "s", "epoch seconds up to which it was", "match", required=True),
    _f("firings", int, "", "processes that the rule would have matched", "match", required=True),
    _f("regrets", int, "", "of them, those that a person might have been sorry for", "match", required=True),
    _f("cpu_seconds_saved", float, "s", "CPU time that all of them used from then on", "match", required=True),
)

AUDIT_CHECK = (
    _f("ts", float, "s", "epoch seconds", "reap", required=True),
    _f("file", str, "", "the audit file; those that were rotated away are read too", "reap", required=True),
    _f("lines", int, "", "lines that were read", "reap", required=True),
    _f("whole", bool, "", "whether the chain holds", "reap", required=True),
    _f("damages", list, "", "where it does not: file, line, text", "reap"),
)

VERDICTS = ("proven", "not_proven", "refuted", "refused")

PROOF = (
    _f("ts", float, "s", "epoch seconds of the verdict", "reap", required=True),
    _f("boot_id", str, "", "identity of the boot", "reap", required=True),
    *(replace(f, required=f.name == "pid", doc=f"{f.doc}, of the suspect")
      for f in _of_process("pid", "start_ticks", "command")),
    _f("victim_pid", int, "", "process id of the victim", "reap", required=True),
    _f("victim_start_ticks", int, "host ticks", "when the victim started", "reap"),
    _f("victim_command", str, "", "its name", "reap"),
    _f("verdict", str, "", "proven: the victim waited less while the suspect was stopped; refuted: it did not; "
       "not_proven: the trials do not decide it", "reap", required=True, choices=VERDICTS),
    _f("detail", str, "", "the verdict in words, with its numbers, or why there is none", "reap"),
    _f("refusals", list, "", "with verdict refused: the code of each reason", "reap"),
    _f("metric", str, "", "what was measured of the victim", "reap", choices=("run_delay_ms_per_s", "pageins_per_s")),
    _f("running", float, "", "its mean while the suspect ran", "reap"),
    _f("stopped", float, "", "its mean while the suspect was stopped", "reap"),
    _f("effect", float, "1", "part of the victim's waiting that ended while the suspect was stopped", "reap"),
    _f("p_value", float, "1", "probability of such a difference if the suspect has no effect (permutation test)",
       "reap"),
    _f("p_refute", float, "1", "probability of so small a difference if it has an effect of a quarter", "reap"),
    _f("trials", list, "", "each trial: the metric while the suspect ran, and while it was stopped", "reap"),
    _f("stop_s", float, "s", "length of each stop", "reap"),
    _f("run", str, "", "identity of the run of the reaper", "reap"),
    _f("audit_seq", int, "", "number of the line about it in the audit file", "reap"),
)

_REPORTED = tuple(replace(f, stage="report") for f in ACTION)

REPORT_ACTION = (_f("id", int, "", "number of the action", "report", required=True), *_REPORTED)

REPORT_MATCH = (
    _f("id", int, "", "number of the match", "report", required=True),
    _f("first_seen", float, "s", "epoch seconds at which the rule began to match", "report", required=True),
    _f("last_seen", float, "s", "epoch seconds of its last report", "report", required=True),
    _f("times", int, "", "number of reports: one a minute while it lasts", "report", required=True),
    *(replace(f, stage="report") for f in MATCH if f.name not in ("ts", "seq", "matched_s")
      and not f.name.startswith("rules_")),
)

RECORDS = {"match": MATCH, "action": ACTION, "proof": PROOF, "rule": RULE, "firing": FIRING, "backtest": BACKTEST,
           "audit_check": AUDIT_CHECK, "report_action": REPORT_ACTION, "report_match": REPORT_MATCH}

SUMMARY = {
    "match": "a process that matches a rule: printed when the match begins, and once a minute while it lasts",
    "action": "what rh-reap did with a process, or why it refused",
    "proof": "whether a process makes another one wait, found by stopping it for moments",
    "rule": "a rule in force, as `rh-match rules` lists it",
    "firing": "a process of the past that a rule would have matched, as `rh-match backtest` finds it",
    "backtest": "all firings of one rule",
    "audit_check": "whether the audit file is what was written, as `rh-reap --verify` finds it",
    "report_action": "an action of the history",
    "report_match": "a rule and a process that it matched, in the history",
}
