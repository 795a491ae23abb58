"""Secrets out of command lines, before anything is stored, sent or logged.

A command line is public to every user of most machines, but a database, a log and a bug report live longer. What
looks like a secret is replaced; what merely might be one in a form nobody uses is left, so the result is a help and
not a guarantee.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "***"
LIMIT = 4096
"""Bytes of a command line that are kept: enough to tell two runs apart, and one page of the kernel's memory."""

# Long words may be glued to what stands before them (PGPASSWORD, accessToken), short ones not (--passive, author).
# The whole name is taken at once and never given back: a hostile argument must not make the search slow.
_LONG = r"(?:password|passwd|passphrase|passcode|secret|token|api[-_]?key|credential|sshpass)"
_SHORT = (r"(?:pass|pwd|access[-_]?key(?:[-_]?id)?|private[-_]?key|auth(?:orization)?|cookie|session[-_]?(?:id|key)"
          r"|bearer|client[-_]?secret|signature|sas)")
_NAME = rf"(?=[a-z0-9_.-]*?(?:{_LONG}|(?<![a-z0-9]){_SHORT})s?(?![a-z0-9]))[a-z0-9_.-]++"
_ASSIGNED = re.compile(rf"(?is)^(-{{0,2}}{_NAME}\s*[=:]\s*)(.+)$")
_FLAG = re.compile(rf"(?i)^-{{1,2}}{_NAME}$")
_HEADER = re.compile(r"(?is)^((?:proxy-)?authorization|x-[a-z0-9-]*(?:key|token|secret|auth)[a-z0-9-]*|(?:set-)?cookie)"
                     r"\s*:.+$")
_INLINE = re.compile(rf"(?i)((?:^|[\s?&;,'\"{{(]){_NAME}['\"]?\s*[=:]\s*(?:(?:bearer|basic|digest)\s+)?)"
                     r"""("[^"]*"|'[^']*'|['"]?[^\s&;,'"})]+)""")
_URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s/:@]*):([^\s/]+)@")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[^\s'\"]{6,}")
_KEY_SHAPE = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|sk-[A-Za-z0-9_-]{16,}"
                        r"|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|glpat-[A-Za-z0-9_-]{16,}"
                        r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)")
_PROGRAM = re.compile(
    # -p takes a password glued to it
    r"(?i)^(?:(?P<glued>mysql\w*|mariadb[\w-]*|7z\w*|zip|unzip|rar|unrar)"
    # -p takes a word that may be one
    r"|(?P<spaced>docker|podman|ldapsearch|rdesktop|xfreerdp)|(?P<both>sshpass)"
    # -u takes user:password
    r"|(?P<user>curl|wget|https?|xh))$")
_TOKEN = re.compile(r"""\s+|(?:[^\s"']++|"[^"]*"|'[^']*')+|["']""")


def redact(argv: Sequence[str]) -> str:
    """The command line as one string, secrets masked, at most LIMIT bytes of UTF-8.

    Takes `--password=x`, `--token x`, `KEY=secret`, `scheme://user:pass@host`, `Bearer x`, `-px` of the programs that
    know it, and well-known key shapes, each also inside of one longer argument (`sh -c "..."`).
    """
    kept: list[str] = []
    size = 0
    for arg in argv:
        # A long argument is cut, but behind the limit: a secret that is cut in half may not look like one.
        kept.append(arg[: 2 * LIMIT])
        size += len(arg) + 1
        if size > 2 * LIMIT:
            break
    line = " ".join(_masked(kept))
    if len(line) > LIMIT or not line.isascii():
        line = line.encode("utf-8", "backslashreplace")[:LIMIT].decode("utf-8", "ignore")
    return line


def _masked(args: Iterable[str]) -> list[str]:
    """The arguments, secrets masked. The program whose options they are may stand behind another: `sudo mysql -px`."""
    out: list[str] = []
    takes = ""
    mask_next = user_next = False
    for arg in args:
        if (mask_next and not arg.startswith("--")) or (user_next and ":" in arg):
            out.append(MASK)
            mask_next = user_next = False
            continue
        mask_next = user_next = False
        program = _PROGRAM.match(arg.rsplit("/", 1)[-1])
        if program is not None:
            takes = program.lastgroup or ""
        elif arg.startswith("-p") and len(arg) > 2 and takes in ("glued", "both"):
            out.append("-p" + MASK)
            continue
        elif _FLAG.match(arg) or (arg == "-p" and takes in ("spaced", "both")):
            mask_next = True
        elif takes == "user":
            if arg in ("-u", "-U", "--user", "--proxy-user"):
                user_next = True
            elif ":" in arg and (flag := re.match("-u|-U|--user=|--proxy-user=", arg)):
                out.append(flag.group() + MASK)
                continue
        out.append(_in_word(arg))
    return out


def _in_word(word: str) -> str:
    """One argument, or a piece of one. Whole lines of shell are taken apart too."""
    if len(word) < 4:
        return word
    if _HEADER.match(word):
        return word.split(":", 1)[0] + ": " + MASK
    if "://" in word:
        word = _URL.sub(rf"\1:{MASK}@", word)
    blank = any(c.isspace() for c in word)
    if not blank and (found := _ASSIGNED.match(word)):
        return found.group(1) + MASK
    if blank:
        # Before the assignments: `Authorization: Bearer x` would else lose the word Bearer and keep the x.
        word = _SCHEME.sub(rf"\1\2{MASK}", word)
    if "=" in word or ":" in word:
        word = _INLINE.sub(rf"\1{MASK}", word)
    if blank:
        word = _in_line(word)
    return _KEY_SHAPE.sub(MASK, word)


def _in_line(line: str) -> str:
    """A line of shell: its words as if they were arguments, the blanks between them as they were."""
    tokens = _TOKEN.findall(line)
    places = [i for i, token in enumerate(tokens) if not token.isspace()]
    if len(places) < 2:
        quote, inner = line[:1], line[1:-1]
        quoted = quote in ("'", '"') and line[-1:] == quote and quote not in inner
        return quote + _in_word(inner) + quote if quoted else line
    for i, masked in zip(places, _masked(tokens[i] for i in places), strict=True):
        tokens[i] = masked
    return "".join(tokens)
