"""No secret of a known form survives in a command line, and no command line makes the search slow or fail."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rogue_hunter.text.redact import LIMIT, MASK, redact

FORMS = {
    "long option": ["db", "--password={}", "-v"],
    "one dash": ["db", "-password={}"],
    "longer name": ["db", "--db-password={}"],
    "glued name": ["psql", "PGPASSWORD={}"],
    "camel case": ["x", "--accessToken={}"],
    "java property": ["java", "-Dspring.datasource.password={}", "-jar", "x.jar"],
    "two arguments": ["gh", "--token", "{}", "pr"],
    "secret option": ["vault", "-client-secret", "{}"],
    "environment": ["env", "API_KEY={}", "run"],
    "aws": ["env", "AWS_SECRET_ACCESS_KEY={}", "aws"],
    "colon": ["x", "password:{}"],
    "header": ["curl", "-H", "Authorization: Bearer {}", "https://h"],
    "basic": ["curl", "-H", "Authorization: Basic {}", "https://h"],
    "own header": ["curl", "-H", "X-Api-Key: {}", "https://h"],
    "cookie": ["curl", "-H", "Cookie: sid={}", "https://h"],
    "header option": ["curl", "--header=Authorization: Bearer {}"],
    "curl -u": ["curl", "-u", "user:{}", "https://h"],
    "curl --user=": ["curl", "--user=user:{}", "https://h"],
    "curl -uX": ["/usr/bin/curl", "-uuser:{}"],
    "mysql -pX": ["mysql", "-uroot", "-p{}", "db"],
    "path to mysql": ["/opt/mysql/bin/mysqldump", "-p{}"],
    "sudo mysql -pX": ["sudo", "-u", "db", "mysql", "-p{}"],
    "sshpass -p X": ["sshpass", "-p", "{}", "ssh", "h"],
    "sshpass -pX": ["sshpass", "-p{}", "ssh", "h"],
    "docker login": ["docker", "login", "-u", "me", "-p", "{}"],
    "podman login -pX": ["podman", "login", "-p{}", "registry"],
    "7z -pX": ["7z", "x", "-p{}", "a.7z"],
    "rar -hpX": ["rar", "a", "-hp{}", "a.rar"],
    "unzip -P": ["unzip", "-P", "{}", "a.zip"],
    "zip -PX": ["zip", "-P{}", "a.zip", "x"],
    "redis-cli -a": ["redis-cli", "-h", "h", "-a", "{}", "ping"],
    "mongo -p": ["mongosh", "-u", "me", "-p", "{}"],
    "mongodump -pX": ["mongodump", "-p{}"],
    "cqlsh": ["cqlsh", "-u", "me", "-p", "{}", "h"],
    "ldapsearch -w": ["ldapsearch", "-D", "cn=me", "-w", "{}"],
    "ldapadd -wX": ["ldapadd", "-w{}"],
    "smbclient -U": ["smbclient", "//h/s", "-U", "me%{}"],
    "rpcclient -UX": ["rpcclient", "-Ume%{}", "h"],
    "openssl -passin": ["openssl", "rsa", "-passin", "pass:{}"],
    "openssl -k": ["openssl", "enc", "-aes-256-cbc", "-k", "{}"],
    "gpg": ["gpg", "--batch", "--passphrase", "{}"],
    "htpasswd -b": ["htpasswd", "-b", "file", "me", "{}"],
    "useradd -p": ["useradd", "-p", "{}", "me"],
    "aws configure": ["aws", "configure", "set", "aws_secret_access_key", "{}"],
    "git config": ["git", "config", "--global", "github.token", "{}"],
    "nmcli": ["nmcli", "dev", "wifi", "connect", "net", "password", "{}"],
    "xfreerdp": ["xfreerdp", "/u:me", "/p:{}", "/v:h"],
    "ipmitool": ["ipmitool", "-H", "h", "-U", "me", "-P", "{}", "power"],
    "sqlcmd -PX": ["sqlcmd", "-S", "h", "-P{}"],
    "lftp": ["lftp", "-u", "me,{}", "h"],
    "snmpwalk": ["snmpwalk", "-v3", "-A", "{}", "h"],
    "httpie": ["http", "-a", "me:{}", "h"],
    "plink": ["plink", "-pw", "{}", "h"],
    "keytool": ["keytool", "-storepass", "{}", "-list"],
    "security -w": ["security", "add-generic-password", "-a", "me", "-w", "{}"],
    "vault login": ["vault", "login", "{}"],
    "wpa_passphrase": ["wpa_passphrase", "net", "{}"],
    "sqlplus": ["sqlplus", "-S", "me/{}"],
    "dscl": ["dscl", ".", "-passwd", "/Users/me", "{}"],
    "kubectl": ["kubectl", "create", "secret", "generic", "s", "--from-literal=password={}"],
    "npm": ["npm", "set", "//r/:_authToken={}"],
    "oc": ["oc", "login", "-u", "me", "-p", "{}"],
    "curl --oauth2-bearer": ["curl", "--oauth2-bearer", "{}"],
}
URLS = {
    "url": ["psql", "postgres://user:{}@host/db"],
    "url without user": ["redis-cli", "-u", "redis://:{}@host"],
    "url in option": ["x", "--dsn=amqp://u:{}@h:5672/%2f"],
    "proxy": ["env", "https_proxy=http://u:{}@p:3128", "x"],
    "query": ["curl", "https://h/x?token={}&y=1"],
}
SHELL = [
    "db --password={} -v",
    "gh --token {} pr",
    "API_KEY={} run",
    "mysql -uroot -p{} db",
    "sudo mysql -p{}",
    "curl -u user:{} https://h",
    "curl -H 'Authorization: Bearer {}' https://h",
    'curl -H "X-Api-Key: {}"',
    "sshpass -p {} ssh h",
    "psql postgres://user:{}@host/db",
    "PASSWORD='{}' run",
    'PASSWORD="{}" run',
    "mysql --password '{}'",
    "curl -H 'Cookie: a=1; sid={}'",
    "true && export TOKEN={}; run",
]

SECRET = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9!#$%*+.:=?^_~-]{7,30}", fullmatch=True).filter(
    lambda s: "***" not in s and "--" not in s
)
PLAIN = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9!#$%*+._~-]{7,30}", fullmatch=True).filter(
    lambda s: "***" not in s and "--" not in s
)


def fill(form: list[str], secret: str) -> list[str]:
    return [part.format(secret) if "{}" in part else part for part in form]


def survives(secret: str, shown: str) -> bool:
    """True when the secret, or any six characters of it, is still there."""
    return any(secret[i : i + 6] in shown for i in range(len(secret) - 5))


@given(st.sampled_from(sorted(FORMS)), SECRET)
@example("two arguments", "hunter2hunter2")
@example("mysql -pX", "assword")
def test_planted_secret(name: str, secret: str) -> None:
    """In every listed form the secret is gone, and what is not secret is still there."""
    form = FORMS[name]
    shown = redact(fill(form, secret))
    assert not survives(secret, shown), shown
    assert MASK in shown and shown.startswith(form[0])


@given(st.sampled_from(sorted(URLS)), PLAIN)
def test_planted_secret_in_a_url(name: str, secret: str) -> None:
    """User names, hosts and ports of a URL stay, its password goes."""
    shown = redact(fill(URLS[name], secret))
    assert not survives(secret, shown), shown
    assert MASK in shown


@pytest.mark.parametrize("secret", ["p@ssw0rd", "@@@@@@", "a:b:c@d:e"])
def test_url_password_with_at(secret: str) -> None:
    """A password may hold @ and : although it should not."""
    assert redact(["x", f"postgres://u:{secret}@h/db"]) == "x postgres://u:***@h/db"


@given(st.sampled_from(SHELL), PLAIN)
def test_planted_secret_in_a_line_of_shell(form: str, secret: str) -> None:
    """Each form also inside of one longer argument: `sh -c "..."`."""
    shown = redact(["sh", "-c", form.format(secret)])
    assert not survives(secret, shown), shown
    assert MASK in shown and shown.startswith("sh -c ")


@pytest.mark.parametrize("secret", ["two words here", "semi;colon,comma & more"])
@pytest.mark.parametrize(
    "form", ["PASSWORD='{}' run", 'export TOKEN="{}"; run', "gh --token '{}' pr", "mysql -p'{}' db"]
)
def test_quoted_secret_with_blanks(form: str, secret: str) -> None:
    """A quoted secret goes whole."""
    shown = redact(["sh", "-c", form.format(secret)])
    assert not survives(secret, shown), shown


@pytest.mark.parametrize(
    "value",
    [
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "x" * 22,
        "sk-proj-" + "k" * 40,
        "xoxb-123456789012-abc",
        "AKIA" + "ABCDEFGH12345678",
        "glpat-" + "z" * 20,
        "eyJhbGciOi12.eyJzdWIiOi34.c2lnbmF0dXJl",
    ],
)
def test_shape_of_a_key(value: str) -> None:
    """A key that everybody knows by its shape goes wherever it stands."""
    for argv in (["x", value], ["x", f"--thing={value}"], ["sh", "-c", f"x '{value}' y"], [value]):
        assert not survives(value, redact(argv)), argv


@pytest.mark.parametrize(
    "argv",
    [
        ["vim", "author.txt", "--passive", "-p", "8080"],
        ["ls", "-la", "/etc/passwd.d"],
        ["make", "-j4", "PASSES=3x"],
        ["cc", "-DNDEBUG", "-pthread"],
        ["rsync", "--partial", "a:b/", "c"],
        ["curl", "https://h:443/a@b"],
        ["tokenizer", "--model=x"],
        ["git", "show", "HEAD:auth.py"],
        ["sh", "-c", "for i in 1 2; do  echo $i; done"],
        ["mysql", "-uroot", "-p"],
        ["bash", "-c", "it's  'one' \"two"],
        ["python3", "-m", "http.server", "8000"],
        ["ssh", "-p", "2222", "host"],
        ["docker", "run", "-p", "8080:80", "nginx"],
        ["git", "add", "src/token.rs", "src/other.rs"],
        ["sqlplus", "/nolog", "@script.sql"],
        ["unzip", "-p", "a.zip", "x"],
        ["ldapsearch", "-p", "389", "-h", "h"],
        ["msbuild", "/p:Configuration=Release"],
        ["helm", "install", "x", "--set=a.b=c"],
        ["openssl", "genrsa", "-out", "k.pem", "2048"],
        ["vault", "status"],
        ["security", "find-identity", "-v"],
    ],
)
def test_harmless(argv: list[str]) -> None:
    """What is no secret is left as it is, blanks and quotes included."""
    if argv[0] == "curl":
        assert redact(argv).startswith("curl https://h:")
    else:
        assert redact(argv) == " ".join(argv)


def test_empty() -> None:
    """No arguments, or empty ones, are no error."""
    assert redact([]) == ""
    assert redact([""]) == ""
    assert redact(["--password"]) == "--password"
    assert redact(["x", "--token", "--verbose", "word"]) == "x --token --verbose word"


@pytest.mark.parametrize("argv", [["x", "a" * 10_000], ["x", *["word"] * 5000], ["x", "日本語" * 3000], ["ü" * 4096]])
def test_limit(argv: list[str]) -> None:
    """At most 4 KiB of UTF-8 come out, cut between characters."""
    shown = redact(argv)
    assert LIMIT - 4 < len(shown.encode()) <= LIMIT


def test_secret_behind_the_limit() -> None:
    """A secret just before the place of the cut is masked, not cut in half."""
    shown = redact(["x", "a" * (LIMIT - 20), "--password=" + "hunter2" * 20])
    assert not survives("hunter2" * 20, shown)


HOSTILE = {
    "token_": "token_" * 1366,
    "-token": "-token" * 1366,
    "a": "a" * 8192,
    "a://": "a" * 8000 + "://",
    "://": "x://:" * 1600,
    "eyJ": "-eyJaaaaaaaa" * 680,
    "blanks": "token" + " " * 8000,
    "quotes": "'\"" * 4096,
    "nested quotes": "'" * 4000 + " " + "'" * 4000,
    "equals": "password=" * 900,
    "nested options": "--a=" * 2000 + "b=c",
    "programs": "mysql -p " * 900,
    "dashes": "--" * 4096,
    "cookie": "cookie:" * 1170,
    "flags": " --token" * 1000,
    "mysql": "mysql -p " * 900,
    "at": "a://b:" + "@" * 8000,
    "bearer": "bearer " * 1170,
    "signs": "&;,'\"{(" * 1170,
    "authorization": "authorization" * 630,
}


@pytest.mark.parametrize("arg", HOSTILE.values(), ids=HOSTILE)
def test_hostile_argument_costs_little(arg: str) -> None:
    """No argument makes the search take time that grows with the square of its length: 8 KiB well under a second."""
    begin = time.process_time()
    redact(["x", arg])
    redact(["sh", "-c", "x " + arg])
    assert time.process_time() - begin < 1.0


@given(st.lists(st.text(st.characters() | st.sampled_from(list("'\" -=:@/p")), max_size=40), max_size=6))
def test_any_arguments(argv: list[str]) -> None:
    """Anything gives a text within the limit that can be encoded."""
    shown = redact(argv)
    assert len(shown.encode()) <= LIMIT
