"""Options of programs that take a secret: `-p` is a port for one program and a password for another.

The source is the manuals of the programs. A secret that is a bare word among others is listed only if the words before
it identify it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
