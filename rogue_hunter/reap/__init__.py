"""The reaper: ends the processes that rules are about, and never another one.

`reap` is the stage, `reap_batch` one run, `Setup` what both need; `guards` says who is never touched.
"""

from rogue_hunter.reap.audit import AuditError, AuditLog
from rogue_hunter.reap.budget import disarm, disarmed, rearm
from rogue_hunter.reap.candidate import Candidate, manual
from rogue_hunter.reap.confirm import confirm_on_tty, question
from rogue_hunter.reap.identity import here
from rogue_hunter.reap.notify import Notifier
from rogue_hunter.reap.run import Setup, exit_code, reap_batch
from rogue_hunter.reap.stage import reap, reap_behind

__all__ = [
    "AuditError", "AuditLog", "Candidate", "Notifier", "Setup", "confirm_on_tty", "disarm", "disarmed", "exit_code",
    "here", "manual", "question", "reap", "reap_batch", "reap_behind", "rearm",
]
