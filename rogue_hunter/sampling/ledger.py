"""What reaped children used: the growth of their parents' counters, minus what was already seen of the children.

When a process waits for a child, the kernel adds all that the child used to the parent's counters: CPU time and page
faults to separate counters (cutime, cmajflt of proc_pid_stat(5)), disk I/O to the counters of the parent itself
(kernel/exit.c, wait_task_zombie: task_io_accounting_add). The child's counters hold what its own reaped children used
in the same way. Most of it was seen in the child's rows before; counted again, the waiting shell would look like the
hog. So each amount is credited once:

- to the process itself, as long as it has rows of its own;
- the rest that it used after its last row to one last row (`ended`), when it had run for at least an interval and the
  rest is no more than it would have used at its last rate;
- what no row showed to the process that waited, as `children_*` rates.

A process whose parent ended with it may have been reaped by the parent before that, or by the next subreaper or
process 1 afterwards. The counters decide: what the nearest living ancestor did not get is looked for further up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

OWN = ("cpu_seconds_total", "pageins_total", "disk_read_bytes_total", "disk_write_bytes_total")
"""The counters of a process, in the order of every vector of amounts here."""
CHILDREN = ("children_cpu_seconds_total", "children_pageins_total")
"""Where its reaped children are counted apart; disk I/O of children is in the counters of the parent (Linux)."""
CPU, PAGEINS, READ, WRITE = range(4)
DISK = (READ, WRITE)

LEAST = (0.005, 0.5, 0.5, 0.5)
"""Less than this is no amount: CPU time of children is counted in steps of 10 ms, the others in whole numbers."""

DEBT_TICKS = 3
"""A parent may be read just before it reaps a child that the same tick finds gone. Its counters have grown by the
next reading, which follows within 0.7 s for rogue-hunter itself and in the next tick for any other."""

Amounts = list[float]


def seen(row: Row) -> Amounts:
    """All that a row shows as used by the process and by the children that it reaped; 0 for what is unknown."""
    return [(row.get(name) or 0.0) + (row.get(CHILDREN[i]) or 0.0 if i < len(CHILDREN) else 0.0)
            for i, name in enumerate(OWN)]


@dataclass(slots=True)
class Claim:
    """What was seen of a process that is gone, to be found in the counters of the process that reaped it.

    `orphan`: its parent is gone as well, so another ancestor may have reaped it.
    """

    key: Key
    row: Row
    amounts: Amounts
    orphan: bool


@dataclass(slots=True)
class Account:
    """One living process in one tick. `grown` is the growth of what its reaped children used; of disk I/O, with its
    own. `reaped`: whether the kernel shows that it reaped anything, None where that is not known.
    """

    grown: Amounts
    reaped: bool | None
    claims: list[Claim] = field(default_factory=list)
    found: Amounts = field(default_factory=lambda: [0.0] * 4)
    """The part of `grown` that was seen of children."""

    def take(self, needed: Amounts) -> Amounts:
        """Find `needed` in the growth; returns what is missing."""
        missing = list(needed)
        for i, need in enumerate(needed):
            if i in DISK and self.reaped is False:
                continue
            part = min(need, self.grown[i] - self.found[i])
            if part > 0:
                self.found[i] += part
                missing[i] = need - part
        return missing


@dataclass(slots=True)
class Settlement:
    """Amounts of one tick. `children` are amounts of unseen children by the process that waited for them, `ended` what
    processes that are gone used after their last row. `reaped_disk` is the part of a process's disk counters since it
    was first seen that is not its own: bytes read and written."""

    children: dict[Key, Amounts] = field(default_factory=dict)
    ended: dict[Key, Amounts] = field(default_factory=dict)
    not_own: dict[Key, Amounts] = field(default_factory=dict)


class Ledger:
    """Keeps the use of ended children that the counters of living processes do not show yet. `shared_disk`: a parent's
    disk counters grow by those of a reaped child, and counters of children that are missing in a row are 0 (Linux)."""

    def __init__(self, shared_disk: bool = True) -> None:
        self._shared_disk = shared_disk
        self._debts: dict[Key, tuple[int, Amounts]] = {}
        self._counters = (*CHILDREN, OWN[READ], OWN[WRITE]) if shared_disk else CHILDREN
        self._tick = 0
        self._interval_s = self._ts = 0.0
        self._reused: set[int] = set()

    def settle(self, before: Mapping[Key, Row], now: Mapping[Key, Row], changed: Iterable[Key], exited: Iterable[Key],
               by_pid: Mapping[int, Key], interval_s: float, ts: float) -> Settlement:
        """The amounts of one tick.

        `before` and `now` are the host's rows, `by_pid` finds the processes of `before`; `interval_s` is the time
        between them, `ts` the time of `before`.
        """
        self._tick += 1
        self._interval_s, self._ts = interval_s, ts
        changed = list(changed)
        self._reused = {key[0] for key in changed if key not in before}
        accounts: dict[Key, Account] = {}
        for key in changed:
            row, was = now.get(key), before.get(key)
            if row is not None and was is not None and row is not was:
                account = self._account(row, was)
                if account is not None:
                    accounts[key] = account
        orphans: list[tuple[Key, Claim]] = []
        for key in exited:
            row = before.get(key)
            if row is not None:
                self._claim(key, row, before, now, by_pid, accounts, orphans)
        for key in [*accounts, *(self._debts.keys() - accounts.keys())]:
            self._collect(key, accounts)
        for ancestor, claim in orphans:
            self._find_above(ancestor, claim, now, by_pid, accounts)
        made = Settlement()
        for key, account in accounts.items():
            self._share_out(key, account, made)
        return made

    def forget(self, key: Key) -> None:
        """The process is gone."""
        self._debts.pop(key, None)

    def _account(self, row: Row, was: Row) -> Account | None:
        """What a process's counters grew by; None if its counters did not change."""
        grown = [0.0] * 4
        for i, name in enumerate(self._counters):
            missing = 0 if self._shared_disk and i < len(CHILDREN) else None
            now, then = row.get(name, missing), was.get(name, missing)
            if now is not None and then is not None and now > then:
                grown[i] = now - then
        reaped = None
        if self._shared_disk:
            reaped = row.get("children_faults_total", 0) > was.get("children_faults_total", 0) or grown[CPU] > 0
        return Account(grown, reaped) if any(grown) or reaped else None

    def _claim(self, key: Key, row: Row, before: Mapping[Key, Row], now: Mapping[Key, Row], by_pid: Mapping[int, Key],
               accounts: dict[Key, Account], orphans: list[tuple[Key, Claim]]) -> None:
        """Enter what was seen of a process that is gone at its nearest living ancestor."""
        amounts = seen(row)
        if not self._shared_disk:
            amounts[READ] = amounts[WRITE] = 0.0
        owed = self._debts.pop(key, None)
        if owed is not None:
            amounts = [a + b for a, b in zip(amounts, owed[1], strict=True)]
        orphan = False
        for parent in ancestors(key, row, before, by_pid):
            if parent in now:
                claim = Claim(key, row, amounts, orphan)
                account = accounts.setdefault(parent, Account([0.0] * 4, None))
                account.claims.append(claim)
                if orphan:
                    orphans.append((parent, claim))
                return
            orphan = True

    def _collect(self, key: Key, accounts: dict[Key, Account]) -> None:
        """Find what was seen of a process's own children in its growth, what is still owed from before first. What is
        missing is owed for some ticks."""
        account = accounts.get(key)
        until, owed = self._debts.pop(key, (0, [0.0] * 4))
        if until < self._tick:
            owed = [0.0] * 4
        if account is None:
            if any(owed):
                self._debts[key] = (until, owed)
            return
        direct = [claim for claim in account.claims if not claim.orphan]
        for claim in direct:
            until = self._tick + DEBT_TICKS
            owed = [a + b for a, b in zip(owed, claim.amounts, strict=True)]
        missing = account.take(owed)
        if any(missing[i] >= LEAST[i] for i in range(4)):
            self._debts[key] = (until, missing)

    def _find_above(self, ancestor: Key, claim: Claim, now: Mapping[Key, Row], by_pid: Mapping[int, Key],
                    accounts: dict[Key, Account]) -> None:
        """Look for an orphan's amounts at its nearest living ancestor, then at those above, up to process 1."""
        missing = claim.amounts
        place: Key | None = ancestor
        above = ancestors(ancestor, now[ancestor], now, by_pid)
        while place is not None and any(missing):
            account = accounts.get(place)
            if account is not None:
                left = account.take(missing)
                if left != missing and claim not in account.claims:
                    account.claims.append(claim)
                missing = left
            place = next(above, None)

    def _share_out(self, key: Key, account: Account, made: Settlement) -> None:
        """Divide what was not seen between the ended children and the process that reaped them."""
        rest = [max(0.0, grown - found) for grown, found in zip(account.grown, account.found, strict=True)]
        if account.reaped is False or (account.reaped is None and not any(account.found)
                                       and rest[CPU] < LEAST[CPU]):
            rest[READ] = rest[WRITE] = 0.0      # nothing was reaped: the process did it itself
        disk = [account.found[i] + rest[i] for i in DISK]
        if any(disk):
            made.not_own[key] = disk
        for i in (CPU, READ, WRITE):
            if rest[i] >= LEAST[i]:
                rest[i] -= self._to_ended(account.claims, i, rest[i], made)
        if any(rest[i] >= LEAST[i] for i in range(4)):
            made.children[key] = rest

    def _to_ended(self, claims: Iterable[Claim], i: int, rest: float, made: Settlement) -> float:
        """Credit ended processes with what they would have used at their last rate, as far as there is so much; returns
        the sum. A process that had lived for less than an interval is left out: of a loop of short-lived children one
        is seen now and then, and the rest was used by the others. So is one whose pid is in use again: a pid occurs
        once in a tick."""
        likely: list[tuple[Key, float]] = []
        for claim in claims:
            row = claim.row
            rate = row.get("cpu_percent", 0.0) / 100 if i == CPU else row.get("disk_bytes_per_s", 0.0)
            age_s = self._ts - row.get("start_time", self._ts)
            if rate > 0 and age_s >= self._interval_s and claim.key[0] not in self._reused:
                likely.append((claim.key, rate * self._interval_s))
        whole = sum(amount for _, amount in likely)
        if not whole:
            return 0.0
        part = min(1.0, rest / whole)
        for key, amount in likely:
            made.ended.setdefault(key, [0.0] * 4)[i] += amount * part
        return whole * part


def parent_of(key: Key, row: Row, rows: Mapping[Key, Row], by_pid: Mapping[int, Key]) -> Row:
    """The row of a process's parent; empty where it is not known."""
    found = next(ancestors(key, row, rows, by_pid), None)
    return {} if found is None else rows[found]


def ancestors(key: Key, row: Row, rows: Mapping[Key, Row], by_pid: Mapping[int, Key]) -> Iterator[Key]:
    """The processes above one, nearest first. A parent that is younger than its child is another process with the
    parent's pid, and ends the chain."""
    met = {key}
    while True:
        parent = by_pid.get(row.get("ppid") or -1)
        if parent is None or parent in met or parent[1] > key[1] or parent not in rows:
            return
        yield parent
        met.add(parent)
        key, row = parent, rows[parent]
