"""What forensics may cost and where it keeps things: the configuration's table of that name."""

from rogue_hunter.config.options import Forensics as ForensicsSettings

__all__ = ["ForensicsSettings"]
