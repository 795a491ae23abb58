"""Names of user ids: looked up in the background, failures expire."""

from __future__ import annotations

import os
import pwd
import threading
import time

from rogue_hunter.host.protocol import USER_RETRY_S, Users


def test_a_user_database_that_hangs_delays_names_only() -> None:
    """The lookup runs in a thread of its own; a name is there as soon as it is known."""
    release = threading.Event()

    def lookup(uid: int) -> str:
        release.wait(10)
        return f"user{uid}"

    users = Users(lookup=lookup)
    began = time.monotonic()
    assert users.name(7) is None and users.name(7) is None and users.found() == {}
    assert time.monotonic() - began < 1
    release.set()
    users.wait(10)
    assert users.found() == {7: "user7"} and users.name(7) == "user7"
    users.close()


def test_a_name_is_waited_for_once_and_not_for_long() -> None:
    release = threading.Event()
    users = Users(lookup=lambda uid: f"user{uid}" if uid == 7 or release.wait(60) else None)
    assert users.soon(7, 60) == "user7"
    began = time.monotonic()
    assert users.soon(8, 0.01) is None and users.soon(8, 60) is None and time.monotonic() - began < 30
    release.set()
    users.wait(60)
    assert users.soon(8, 0) == "user8"
    users.close()


def test_a_user_without_a_name_is_looked_up_again() -> None:
    """A directory service that was down: a failure holds for a minute only."""
    now, names = 0, dict[int, str]()
    users = Users(lambda: now, names.get)
    assert users.name(7) is None
    users.wait(10)
    assert users.found() == {}
    names[7] = "ann"
    assert users.name(7) is None and users.found() == {}
    now = int(USER_RETRY_S * 1e9)
    assert users.name(7) is None
    users.wait(10)
    assert users.found() == {7: "ann"} and users.name(7) == "ann"
    users.close()


def test_own_user() -> None:
    users = Users()
    users.name(os.getuid())
    users.wait(10)
    assert users.found() == {os.getuid(): pwd.getpwuid(os.getuid()).pw_name}
    users.close()
