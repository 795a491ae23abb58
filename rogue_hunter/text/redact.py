"""Mask secrets in command lines, before anything is stored, sent or logged.

A command line is public to every user of most machines, but a database, a log and a bug report live longer. Text
that looks like a secret is replaced. Redaction is best effort: unusual formats are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rogue_hunter.text.secret_options import Options, options_of

MASK = "***"
LIMIT = 4096
"""Bytes of a command line that are kept: one page of memory, enough to distinguish two runs."""

NAMED = 8
"""Programs of one command line whose options are searched."""

# Long words may follow other letters (PGPASSWORD, accessToken), short ones may not (--passive, author).
# The name is matched possessively, without backtracking: a hostile argument must not make the search slow.
_LONG = r"(?:password|passwd|passphrase|passcode|secret|token|api[-_]?key|credential|sshpass|storepass|keypass)"
_SHORT = (r"(?:pass|pwd|access[-_]?key(?:[-_]?id)?|private[-_]?key|auth(?:orization)?|cookie|session[-_]?(?:id|key)"
          r"|bearer|client[-_]?secret|signature|sas)")
_NAME = rf"(?=[a-z0-9_.-]*?(?:{_LONG}|(?<![a-z0-9]){_SHORT})s?(?![a-z0-9]))[a-z0-9_.-]++"
_ASSIGNED = re.compile(rf"(?is)^(-{{0,2}}{_NAME}\s*[=:]\s*)(.+)$")
# `--from-literal=password=x`: the value of the option is an assignment itself.
_NESTED = re.compile(r"(?s)^(--[A-Za-z0-9-]{1,40}=)(?!--)([^=]{1,200}=.+)$")
_FLAG = re.compile(rf"(?i)^-{{1,2}}{_NAME}$")
_HEADER = re.compile(r"(?is)^((?:proxy-)?authorization|x-[a-z0-9-]*(?:key|token|secret|auth)[a-z0-9-]*|(?:set-)?cookie)"
                     r"\s*:.+$")
_INLINE = re.compile(rf"(?i)((?:^|[\s?&;,:'\"{{(]){_NAME}['\"]?\s*[=:]\s*(?:(?:bearer|basic|digest)\s+)?)"
                     r"""("[^"]*"|'[^']*'|['"]?[^\s&;,'"})]+)""")
_URL_TOKEN = re.compile(r"(\bhttps?://)[^\s/:@]{16,}@")
_URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s/:@]*):([^\s/]+)@")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[^\s'\"]{6,}")
_KEY_SHAPE = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|sk-[A-Za-z0-9_-]{16,}"
                        r"|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|glpat-[A-Za-z0-9_-]{16,}"
                        r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)")
_TOKEN = re.compile(r"""\s+|(?:[^\s"']++|"[^"]*"|'[^']*')+|["']""")


def redact(argv: Sequence[str]) -> str:
    """The command line as one string, secrets masked, at most LIMIT bytes of UTF-8.

    Recognises `--password=x`, `--token x`, `KEY=secret`, `scheme://user:pass@host`, `Bearer x`, `-px` of the programs
    that have it, and well-known key shapes, each also inside of one longer argument (`sh -c "..."`).
    """
    kept: list[str] = []
    size = 0
    for arg in argv:
        # A long argument is cut beyond the limit first: half of a secret may not look like one.
        kept.append(arg[: 2 * LIMIT])
        size += len(arg) + 1
        if size > 2 * LIMIT:
            break
    line = " ".join(_masked(kept))
    if len(line) > LIMIT or not line.isascii():
        line = line.encode("utf-8", "backslashreplace")[:LIMIT].decode("utf-8", "ignore")
    return line


def _masked(args: Iterable[str]) -> list[str]:
    """The arguments, secrets masked. The program may follow another one (`sudo mysql -px`), and a word may only look
    like the name of a program: the options of all programs named count."""
    out: list[str] = []
    named: list[Options] = []
    mask_next = rest = False
    apart = ""
    for arg in args:
        if (mask_next and not arg.startswith("--")) or (rest and not arg.startswith("-")) or (apart and apart in arg):
            out.append(MASK)
            mask_next, apart = False, ""
            continue
        mask_next, apart = _FLAG.match(arg) is not None, ""
        masked = None
        for i, takes in enumerate(named):
            if takes.after:
                if arg == takes.after:
                    named[i] = replace(takes, after="")
                continue
            masked = masked or _option(arg, takes)
            mask_next = mask_next or arg in takes.spaced or _bare(arg, takes) is not None
            apart = apart or (takes.apart if arg in takes.user else "")
            rest = rest or arg in takes.rest
        if masked is not None:
            out.append(masked)
            mask_next, apart = False, ""
            continue
        program = options_of(arg)
        if program is not None and len(named) < NAMED and program not in named:
            named.append(program)
            rest = rest or arg.rsplit("/", 1)[-1] in program.rest
        out.append(_in_word(arg))
    return out


def _option(arg: str, takes: Options) -> str | None:
    """One word of an option and its secret, masked; None for other words."""
    for option in takes.glued:
        if arg.startswith(option) and len(arg) > len(option) and not (option == "-p" and arg[2] == "="):
            return option + MASK
    for option in takes.user:
        given = option + "=" if option.startswith("--") else option
        if arg != option and arg.startswith(given) and takes.apart in arg[len(given):] and "://" not in arg:
            if not option:
                return _first_of(arg, takes.apart)
            return given + MASK
    return None


def _first_of(arg: str, apart: str) -> str | None:
    """`user/secret@place` with the secret masked: the form that the program uses without an option."""
    who, _, secret = arg.partition(apart)
    if not who or who[0] in "-@/." or not secret or "=" in who:
        return None
    return f"{who}{apart}{MASK}{''.join(secret.rpartition('@')[1:]) if '@' in secret else ''}"


def _bare(arg: str, takes: Options) -> re.Match[str] | None:
    return re.fullmatch(takes.words, arg, re.IGNORECASE) if takes.words else None


def _in_word(word: str) -> str:
    """One argument, or a part of one, masked. Command lines for a shell are split and masked too."""
    if len(word) < 4:
        return word
    if _HEADER.match(word):
        return word.split(":", 1)[0] + ": " + MASK
    if "://" in word:
        word = _URL_TOKEN.sub(rf"\1{MASK}@", _URL.sub(rf"\1:{MASK}@", word))
    blank = any(c.isspace() for c in word)
    if not blank and (found := _ASSIGNED.match(word)):
        return found.group(1) + MASK
    if not blank and (found := _NESTED.match(word)):
        return found.group(1) + _in_word(found.group(2))
    if blank:
        # Before the assignments: `Authorization: Bearer x` would otherwise lose the word Bearer and keep the x.
        word = _SCHEME.sub(rf"\1\2{MASK}", word)
    if "=" in word or ":" in word:
        word = _INLINE.sub(rf"\1{MASK}", word)
    if blank:
        word = _in_line(word)
    return _KEY_SHAPE.sub(MASK, word)


def _in_line(line: str) -> str:
    """A command line for a shell, masked word by word; the spaces between them stay."""
    tokens = _TOKEN.findall(line)
    places = [i for i, token in enumerate(tokens) if not token.isspace()]
    if len(places) < 2:
        quote, inner = line[:1], line[1:-1]
        quoted = quote in ("'", '"') and line[-1:] == quote and quote not in inner
        return quote + _in_word(inner) + quote if quoted else line
    for i, masked in zip(places, _masked(tokens[i] for i in places), strict=True):
        tokens[i] = masked
    return "".join(tokens)
