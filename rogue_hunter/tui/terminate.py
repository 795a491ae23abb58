"""Terminate a process from rh-top: through the guards, the audit file and the question of rh-reap."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence

from rogue_hunter.config.options import Config
from rogue_hunter.paths import state_dir
from rogue_hunter.reaper.audit import audit_log
from rogue_hunter.reaper.candidate import Candidate, manual
from rogue_hunter.reaper.notify import sentence
from rogue_hunter.reaper.platform import here
from rogue_hunter.reaper.process import Machine, Unreadable
from rogue_hunter.reaper.run import Setup, reap_batch
from rogue_hunter.reaper.signals import Gone, Stop
from rogue_hunter.rules.load import user_rules
from rogue_hunter.schema.field import Key
from rogue_hunter.text.errors import RogueHunterError

Confirm = Callable[[Sequence[Candidate]], bool]


def terminate(key: Key, config: Config, confirm: Confirm, stop: Stop, machine: Callable[[], Machine] = here) -> str:
    """Ask, then end the process of an identity; returns what became of it, in a sentence. Takes up to 8 s. Nothing is
    done to another process that has its pid by now."""
    pid = key[0]
    try:
        at = machine()
        match = manual(at, pid, time.time())
        if match["start_ticks"] != key[1]:
            return f"{pid} has exited; another process has its pid now"
        rules = user_rules()
        setup = Setup(rules, at, audit_log(config.reap, rules.settings), state_dir(), host=platform.node(),
                      confirm=confirm, stop=stop, dry_run=rules.settings.dry_run)
        (action,) = reap_batch([match], setup)
    except Gone:
        return f"{pid} has exited"
    except (Unreadable, RogueHunterError, OSError) as error:
        return f"{pid}: not killed: {error}"
    return sentence(action)
