"""The waits of a report as a graph of threads and processes: nodes, edges, cycles, order, reach.

Nothing here recurses: a report may hold a chain of 6,000 waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rogue_hunter.stream.tick import Record

Node = tuple[int, str]
"""(pid, thread id); thread id "": the process as a whole; pid -1: unknown."""

SOFT = frozenset(("pipe read", "socket read"))
OBSERVERS = frozenset(("spindump", "spindump_agent", "sysdiagnose", "sysdiagnosed", "sysdiagnose_agent", "tailspind",
                       "tailspin", "ReportCrash", "sample", "stackshot"))
"""Programs of macOS that make reports. Waits for them, and theirs, are of the report and not of the machine."""
_SYSTEM_PATHS = ("/usr/", "/System/")


@dataclass(frozen=True, slots=True)
class Edge:
    """One waiter, one holder; samples of all waits between the two added up, hops the fewest seen."""

    waiter: Node
    holder: Node
    samples: int
    hops: int
    kind: str
    guessed: bool

    @property
    def soft(self) -> bool:
        """True for a wait for input: the other end could end it, but may just be idle."""
        return self.kind in SOFT


@dataclass(frozen=True, slots=True)
class Root:
    """One answer.

    `foreign_samples` is the part of `samples` that other processes waited. `chain` goes from the first waiter to the
    root, `hops` is its length with the links that the kernel followed without naming them; `cycle` holds the members
    when the root is a cycle, `certain`: all of its waits lasted through every sample.
    """

    node: Node
    command: str
    threads: tuple[str, ...]
    samples: float
    foreign_samples: float
    waiters: int
    processes: int
    hops: int
    chain: tuple[str, ...]
    waits_for: str | None
    cycle: tuple[str, ...]
    certain: bool
    guessed: bool


@dataclass(frozen=True, slots=True)
class Blame:
    """`roots`, the one that blocks most first; `edges` and `unnamed`: waits with and without a process at their end.
    `observers`: waits that were left out because a program that makes reports is at one end."""

    roots: tuple[Root, ...]
    edges: tuple[Edge, ...]
    unnamed: int
    steps: int | None
    observers: int = 0


@dataclass(slots=True)
class Gathered:
    edges: dict[tuple[Node, Node], Edge] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    labels: dict[Node, str] = field(default_factory=dict)
    owner: dict[str, int] = field(default_factory=dict)
    waits_for: dict[Node, str] = field(default_factory=dict)
    blockers: list[Record] = field(default_factory=list)
    unnamed: int = 0
    steps: int | None = None
    deadlocked: set[Node] = field(default_factory=set)
    observers: set[int] = field(default_factory=set)
    observed: int = 0


def gather(records: Iterable[Record]) -> Gathered:
    """First pass: names of processes, processes of threads, what each thread does."""
    got = Gathered()
    for each in records:
        kind = each.get("type")
        pid = each.get("pid")
        if kind == "spindump_process" and pid is not None:
            got.names[pid] = each.get("command") or "?"
            # A process of Linux has a start time; there a program of this name is one like any other.
            if got.names[pid] in OBSERVERS and "start_ticks" not in each and \
                    str(each.get("path") or "/usr/").startswith(_SYSTEM_PATHS):
                got.observers.add(pid)
        elif kind == "spindump_thread":
            for one in each["thread_id"].split(","):
                got.owner.setdefault(one, -1 if pid is None else pid)
            label = each.get("thread_name") or each.get("queue")
            if label:
                got.labels[-1 if pid is None else pid, each["thread_id"]] = label
            leaf = each.get("leaf") or each.get("wchan")
            if leaf and each.get("state") not in ("running", "runnable"):
                got.waits_for.setdefault((-1 if pid is None else pid, each["thread_id"]), leaf)
        elif kind == "spindump_blocker":
            got.blockers.append(each)
        elif kind == "spindump_report":
            got.steps = each.get("steps", got.steps)
    return got


def take(got: Gathered, each: Record) -> None:
    """Add one wait to the graph; a waiter that is several threads stays one node."""
    pid = each.get("pid")
    waiter: Node = (-1 if pid is None else pid, each["thread_id"])
    thread = each.get("on_thread_id")
    on = each.get("on_pid")
    guessed = each.get("certainty") == "guessed"
    if on is None and thread is not None:
        # `waiting for thread 0x1`: thread ids of macOS are unique, and one that the report lists has an owner.
        on = got.owner.get(thread, waiter[0])
    if pid in got.observers or on in got.observers:
        got.observed += 1
        return
    if on is None:
        got.unnamed += 1
        got.waits_for[waiter] = f"{each.get('blocked_by', '?')}: {each['on_what']}" if each.get("on_what") \
            else each.get("blocked_by", "?")
        return
    got.names.setdefault(on, each.get("on_command") or "?")
    if pid is not None:
        got.names.setdefault(pid, each.get("command") or "?")
    if each.get("deadlock"):
        got.deadlocked.add(waiter)
    _add(got, Edge(waiter, (on, thread or ""), max(0, each.get("samples", 1)), max(1, each.get("hops") or 1),
                   each.get("blocked_by", "?"), guessed))


def _add(got: Gathered, edge: Edge) -> None:
    known = got.edges.get((edge.waiter, edge.holder))
    if known is not None:
        edge = Edge(edge.waiter, edge.holder, known.samples + edge.samples, min(known.hops, edge.hops), known.kind,
                    known.guessed and edge.guessed)
    got.edges[edge.waiter, edge.holder] = edge


def follow_processes(got: Gathered) -> None:
    """Link nodes that are the same thing: a process and its threads, a thread and the group that it is counted in.

    If only the process is named as the holder, it can be blocked itself through any of its threads: these links are
    guesses. Waits of a process for its own threads are not linked.
    """
    waits: dict[int, list[Edge]] = {}
    groups: dict[Node, list[Edge]] = {}
    for edge in got.edges.values():
        waits.setdefault(edge.waiter[0], []).append(edge)
        if "," in edge.waiter[1]:
            for one in edge.waiter[1].split(","):
                groups.setdefault((edge.waiter[0], one), []).append(edge)
    holders = dict.fromkeys(edge.holder for edge in got.edges.values())
    for node in holders:
        if node[1] == "":
            for edge in waits.get(node[0], ()):
                if edge.holder[0] != node[0] and not edge.soft:
                    _add(got, Edge(node, edge.holder, edge.samples, edge.hops, edge.kind, True))
        else:
            for edge in groups.get(node, ()):
                if edge.holder != node and not edge.soft:
                    _add(got, Edge(node, edge.holder, edge.samples, edge.hops, edge.kind, True))


def seen(got: Gathered) -> set[tuple[Node, Node]]:
    """The edges that were observed, without those added by follow_processes: only they are a source of waiting."""
    real: set[tuple[Node, Node]] = set()
    for each in got.blockers:
        pid = each.get("pid")
        waiter = (-1 if pid is None else pid, each["thread_id"])
        real.update(pair for pair in ((waiter, h) for h in (
            (each.get("on_pid"), each.get("on_thread_id") or ""),
            (got.owner.get(each.get("on_thread_id") or "", waiter[0]), each.get("on_thread_id") or ""),
        )) if pair in got.edges)
    return real


N = TypeVar("N", bound=Hashable)


def strongly_connected(successors: Mapping[N, Sequence[N]]) -> list[list[N]]:
    """The strongly connected components, holders before waiters (Tarjan's order: sinks first)."""
    index: dict[N, int] = {}
    low: dict[N, int] = {}
    stack: list[N] = []
    on_stack: set[N] = set()
    found: list[list[N]] = []
    for root in successors:
        if root in index:
            continue
        work: list[tuple[N, int]] = [(root, 0)]
        while work:
            node, child = work.pop()
            if child == 0:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            following = successors.get(node, ())
            for i in range(child, len(following)):
                after = following[i]
                if after not in index:
                    work.append((node, i + 1))
                    work.append((after, 0))
                    break
                if after in on_stack:
                    low[node] = min(low[node], index[after])
            else:
                if low[node] == index[node]:
                    members: list[N] = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == node:
                            break
                    found.append(members)
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
    return found


def reach_back(targets: Iterable[N], predecessors: Mapping[N, Sequence[N]]) -> set[N]:
    """Every node from which one of `targets` is reached by at least one step."""
    seen: set[N] = set()
    queue = list(targets)
    for node in queue:
        for before in predecessors.get(node, ()):
            if before not in seen:
                seen.add(before)
                queue.append(before)
    return seen
