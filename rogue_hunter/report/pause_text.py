"""A pause in words: what was short, or what is known instead, and which process used most of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rogue_hunter.report.sentences import name, number, percent
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration, size
from rogue_hunter.tracking.pauses import STOOD_STILL


def pause_words(pause: Record) -> str:
    """What follows after `paused 2.1s`: what was short, or what is known instead."""
    evidence, cause = pause["evidence"], pause["cause"]
    if cause == "steal":
        counted, cpus = evidence.get("cpu_counted_cores"), evidence.get("cpus")
        if counted is not None and cpus and counted < STOOD_STILL * cpus:
            return f" with the whole virtual machine: {number(counted)} of {cpus} CPUs ran; no process is to blame"
        return (f" for the hypervisor ran others: {number(evidence.get('cpu_steal_cores', 0.0))} of {cpus} CPUs; "
                "no process is to blame")
    if cause == "stopped":
        return " because rh-pipe itself was stopped (SIGSTOP, or a debugger); no process is to blame"
    if cause == "throttled":
        return " because rh-pipe itself reached the CPU quota of its control group; no process is to blame"
    if cause == "unknown":
        delay = evidence.get("self_run_delay_ms")
        queue = f" (rh-pipe waited {number(round(delay))} ms of it for a CPU)" if delay is not None else ""
        return f", and nothing was short{queue}: no evidence of a cause"
    return f" for want of {'storage' if cause == 'io' else cause}"


def culprit_words(culprit: Mapping[str, Any]) -> str:
    """`stress (pid 812) used 3.9s of CPU time, 93 %`."""
    resource, amount = culprit.get("resource"), culprit.get("amount") or 0.0
    did = {"cpu": f"used {duration(amount)} of CPU time", "memory": f"had {size(amount)} of memory",
           "disk": f"moved {size(amount)}"}.get(str(resource), "")
    return f"{name(culprit)} {did}, {percent(culprit.get('share'))}"
