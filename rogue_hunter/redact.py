"""Secrets out of command lines, before anything is stored, sent or logged.

A command line is public to every user of most machines, but a database, a log and a bug report live longer. What
looks like a secret is replaced; what merely might be one in a form nobody uses is left, so the result is a help and
not a guarantee.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
LIMIT = 4096
"""Bytes of a command line that are kept: enough to tell two runs apart, and one page of the kernel's memory."""

_WORD = (r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|access[-_]?key(?:[-_]?id)?|private[-_]?key"
         r"|auth(?:orization)?|credentials?|cookie|session[-_]?(?:id|key)|bearer|client[-_]?secret|signature|sas)")
# The word may be a part of a longer name (DB_PASSWORD, --github-token), but not of another word (--passive, author).
_NAME = rf"(?:[a-z0-9_.-]*[_.-])?{_WORD}s?(?:[_.-][a-z0-9_.-]*)?"
_ASSIGNED = re.compile(rf"(?is)^(-{{0,2}}{_NAME}\s*[=:]\s*)(.+)$")
_FLAG = re.compile(rf"(?i)^-{{1,2}}{_NAME}$")
_HEADER = re.compile(r"(?is)^((?:proxy-)?authorization|x-[a-z0-9-]*(?:key|token|secret|auth)[a-z0-9-]*|(?:set-)?cookie)"
                     r"\s*:.+$")
_INLINE = re.compile(rf"(?i)((?:^|[\s?&;,'\"{{(]){_NAME}['\"]?\s*[=:]\s*['\"]?(?:(?:bearer|basic|digest)\s+)?)"
                     r"([^\s&;,'\"})]+)")
_FLAG_INLINE = re.compile(rf"(?i)((?:^|\s)-{{1,2}}{_NAME}\s+)((?!-)\S+)")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*):([^\s@/]+)@")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[A-Za-z0-9._~+/=-]{6,}")
_KEY_SHAPE = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|sk-[A-Za-z0-9_-]{16,}"
                        r"|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|glpat-[A-Za-z0-9_-]{16,}"
                        r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)")
# Programs whose -p takes a password glued to it.
_GLUED_P = re.compile(r"(?i)^(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump|sshpass|7z|7za|zip|unzip|rar|unrar)")
# Programs whose -u takes user:password, and what -p followed by a word means to them.
_USER_COLON = re.compile(r"(?i)^(?:curl|wget|http|https|xh)")
_SPACE_P = re.compile(r"(?i)^(?:sshpass|docker|podman|ldapsearch|rdesktop|xfreerdp)")


def redact(argv: Sequence[str]) -> str:
    """The command line as one string, secrets masked, at most LIMIT characters.

    Takes `--password=x`, `--token x`, `KEY=secret`, `scheme://user:pass@host`, `Bearer x`, `-px` of the programs that
    know it, and well-known key shapes, each also inside of one longer argument (`sh -c "..."`).
    """
    program = argv[0].rsplit("/", 1)[-1] if argv else ""
    out: list[str] = []
    mask_next = False
    size = 0
    for i, arg in enumerate(argv):
        if size > LIMIT:
            break
        if mask_next:
            mask_next = False
            if not arg.startswith("--"):
                out.append(MASK)
                continue
        word = arg[: 2 * LIMIT]
        if i > 0:
            if _FLAG.match(word) or (word == "-p" and _SPACE_P.match(program)):
                mask_next = True
            elif word in ("-u", "--user", "--proxy-user", "-U") and _USER_COLON.match(program) and i + 1 < len(argv):
                mask_next = ":" in argv[i + 1]
            elif len(word) > 2 and word.startswith("-p") and _GLUED_P.match(program):
                word = "-p" + MASK
        word = _in_word(word)
        out.append(word)
        size += len(word) + 1
    return " ".join(out)[:LIMIT]


def _in_word(word: str) -> str:
    if len(word) < 4:
        return word
    if _HEADER.match(word):
        return word.split(":", 1)[0] + ": " + MASK
    if "://" in word:
        word = _URL.sub(rf"\1:{MASK}@", word)
    if not any(c.isspace() for c in word) and (found := _ASSIGNED.match(word)):
        return found.group(1) + MASK
    if " " in word:
        # Before the assignments: `Authorization: Bearer x` would else lose the word Bearer and keep the x.
        word = _SCHEME.sub(rf"\1\2{MASK}", word)
        word = _FLAG_INLINE.sub(rf"\1{MASK}", word)
    if "=" in word or ":" in word:
        word = _INLINE.sub(rf"\1{MASK}", word)
    return _KEY_SHAPE.sub(MASK, word)
