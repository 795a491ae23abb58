"""Which options of which programs take a secret: names alone do not tell, `-p` is a port to one and a password to
another.

From the manuals of the programs. What takes the secret as a bare word between others is in it only where that word can
be told by what stands before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Of one kind of program. `program` is a pattern of its name.

    `glued` options have their secret behind them in the same word, `spaced` ones in the next. `user` options take
    `user` and secret in one word, `apart` by this sign. `after` words have to come first. `rest` words are followed by
    nothing but names and secrets; `words` are bare words that a secret follows.
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
    Options(r"signtool(?:\.exe)?", spaced=("/p",)),
    Options(r"\w*freerdp\d?", glued=("/p:", "/pcb:", "/gp:")),
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

_PROGRAM = re.compile("(?i)(?:" + "|".join(f"({each.program})" for each in _TABLE) + r")(?:\.exe)?")


def options_of(word: str) -> Options | None:
    """The options of a program, by its path or its name; None for what is none of these."""
    found = _PROGRAM.fullmatch(word.rsplit("/", 1)[-1])
    return None if found is None or found.lastindex is None else _TABLE[found.lastindex - 1]
