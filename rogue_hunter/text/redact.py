"""Mask secrets in command lines, before anything is stored, sent or logged.

A command line is public to every user of most machines, but a database, a log and a bug report live longer. Text
that looks like a secret is replaced. Redaction is best effort: unusual formats are not recognised.

The source is the manuals of the programs. A secret that is a bare word among others is listed only if the words before
it identify it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one kind of program. `program` is a pattern of its name.

    `glued`: options with their secret in the same word; `spaced`: in the next word. `user`: options that take user and
    secret in one word, separated by `apart`. `after`: words that must come first. `rest`: words that are followed only
    by names and secrets. `words`: bare words that a secret follows.
    """

    program: str
    glued: tuple[str, ...] = ()
    spaced: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    apart: str = ":"
    after: str = ""
    rest: tuple[str, ...] = ()
    words: str = ""


def _both(program: str, *options: str, after: str = "") -> Options:
    return Options(program, glued=options, spaced=options, after=after)


_NAMED = r"[\w.:/-]*(?:password|secret|token|psk|credential)[\w.-]*|[\w.:/-]*_(?:auth|access_key)"

_TABLE = (
    Options(r"mysql\w*|mariadb[\w-]*", glued=("-p",)),
    Options(r"7z\w*|7-zip", glued=("-p",)),
    Options(r"(?:un)?rar", glued=("-p", "-hp")),
    _both(r"(?:un)?zip\w*", "-P"),
    _both(r"sshpass", "-p"),
    _both(r"docker|podman|nerdctl|buildah|skopeo|oras|helm|oc|az|cf|fly|crane|regctl", "-p", after="login"),
    _both(r"mongo\w*|cqlsh|twine|ncftp\w*|hydra|medusa|evil-winrm|crackmapexec|nxc|netexec|user(?:add|mod)|rdesktop",
          "-p"),
    _both(r"redis-cli|keydb-cli|valkey-cli", "-a"),
    _both(r"ldap(?:search|add|modify|delete|passwd|whoami|compare|modrdn)", "-w"),
    _both(r"ipmitool|sqlcmd|bcp|osql|tsql", "-P"),
    _both(r"snmp(?:get|getnext|bulkget|walk|bulkwalk|set|table|trap|inform|status|df)", "-A", "-X", "-c"),
    _both(r"security", "-p", "-w"),
    Options(r"openssl", spaced=("-k", "-K")),
    Options(r"nuget|dotnet", spaced=("-k", "-apikey")),
    Options(r"plink|pscp|psftp|putty", spaced=("-pw",)),
    Options(r"sendemail|swaks", spaced=("-xp", "-ap")),
    Options(r"signtool", spaced=("/p",)),
    Options(r"xfreerdp|wlfreerdp|sfreerdp|sdl-freerdp|freerdp|xfreerdp3|wlfreerdp3|sdl-freerdp3",
            glued=("/p:", "/pcb:", "/gp:")),
    Options(r"curl|wget|https?|xh|xhs", user=("-u", "-U", "-a", "--user", "--auth", "--proxy-user")),
    Options(r"smbclient|smbget|smbmap|rpcclient|winexe|net|smbcacls|smbspool", user=("-U", "--user"), apart="%"),
    Options(r"lftp", user=("-u", "--user"), apart=","),
    Options(r"impacket-\w+|(?:psexec|wmiexec|smbexec|secretsdump)\.py", user=("",), apart=":"),
    Options(r"sqlplus|sqlldr|rman|(?:imp|exp)(?:dp)?", user=("",), apart="/"),
    Options(r"htpasswd", rest=("-b", "-nb", "-bn", "-cb", "-bc", "-nbB", "-Bbn", "-bB", "-Bb", "-cBb")),
    Options(r"dscl", rest=("-passwd",)),
    Options(r"wpa_passphrase", rest=("wpa_passphrase",)),
    Options(r"vault", rest=("login",)),
    Options(r"aws|gcloud|nmcli", words=_NAMED),
    Options(r"git|npm|yarn|pnpm|pip\d?|poetry|heroku", words=_NAMED, after="config"),
    Options(r"iwconfig", words="key|enc"),
)

_PLAIN: dict[str, Options] = {}
_SHAPES: list[tuple[str, Options]] = []
for _each in _TABLE:
    # Alternatives that are plain words: one dictionary lookup; a pattern of all of them took 10 us a word.
    for _name in re.split(r"\|(?![^(]*\))", _each.program):
        if re.fullmatch(r"[a-z0-9_-]+", _name):
            _PLAIN[_name] = _each
        else:
            _SHAPES.append((_name, _each))


@cache
def _shapes() -> re.Pattern[str]:
    return re.compile("|".join(f"({name})" for name, _ in _SHAPES))


def options_of(word: str) -> Options | None:
    """The options of a program, by its path or name; None for an unknown program."""
    if word[:1] in ("-", "") or len(word) > 4096:
        return None
    name = word.rsplit("/", 1)[-1].lower().removesuffix(".exe")
    if len(name) > 32 or not name[:1].isalnum():
        return None
    if (found := _PLAIN.get(name)) is not None:
        return found
    shape = _shapes().fullmatch(name)
    return None if shape is None or shape.lastindex is None else _SHAPES[shape.lastindex - 1][1]


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
