"""Rules: which processes are rogue, said in TOML.

`load` reads them, `rogue_hunter.match` asks them about ticks, `check_examples` tests them against their own examples.
"""

from rogue_hunter.rules.examples import check_examples
from rogue_hunter.rules.load import builtin, find_project, from_values, load, parse
from rogue_hunter.rules.model import Action, Rule, RuleError, RuleSet, Safety, Settings
from rogue_hunter.rules.user import user_file, user_rules

__all__ = [
    "Action", "Rule", "RuleError", "RuleSet", "Safety", "Settings", "builtin", "check_examples", "find_project",
    "from_values", "load", "parse", "user_file", "user_rules",
]
