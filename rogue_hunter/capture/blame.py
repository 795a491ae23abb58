"""Who blocks whom: the waits of a report as a graph, followed to their roots.

A node is a thread, or a process where the kernel does not say which of its threads is waited for. A wait is an edge
from the waiter to the holder; its weight is the number of samples in which it was seen. A holder that waits itself
passes the blame on, but no more of a wait than it waited itself: of 14 samples spent waiting for a thread that was
blocked for 12, 2 stay with that thread and 12 go to the holders that blocked it, split by weight. Members of a cycle
block each other: the cycle is the root, and a deadlock when each of its waits lasted through all samples.

A wait for input (reading a pipe or a socket) is soft: the process at the other end could end it, but a server that
waits for its next client is idle, not blocked. Such a wait is a source of blame and never passes blame on, so two idle
ends of one socket are no deadlock.

Roots are ranked by the samples that other processes spent waiting: a thread pool that waits for one of its own threads
affects only its own process.

A report also points at processes without a wait, its suspects: unresponsive, its target, those that use CPU or memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.capture.wait_graph import (
    OBSERVERS,
    Blame,
    Edge,
    Gathered,
    Node,
    Root,
    follow_processes,
    gather,
    reach_back,
    seen,
    strongly_connected,
    take,
)
from rogue_hunter.stream.tick import Record, record

Origins = dict[int | None, float]
"""Samples by the process that spent them waiting."""

MAX_ORIGINS = 1000
MAX_CHAIN = 32
"""Links of a chain that are reported."""
MAX_ROOTS = 100
"""Roots whose waiters are counted and whose chain is followed."""


def blame(records: Iterable[Record]) -> Blame:
    """The answer for the records of one report or of one capture, in any order. Other record types are ignored."""
    got = gather(records)
    for each in got.blockers:
        take(got, each)
    follow_processes(got)
    edges = tuple(got.edges.values())
    roots = _roots(got, edges) if edges else ()
    return Blame(roots, edges, got.unnamed, got.steps, got.observed)


def blame_records(answer: Blame, capture: str | None = None) -> Iterator[Record]:
    """The answer as `blame` records, the one that blocks most first. `capture`: the key of its capture."""
    for rank, root in enumerate(answer.roots, 1):
        yield record(
            "blame", capture=capture, rank=rank, pid=root.node[0] if root.node[0] >= 0 else None,
            command=root.command,
            threads=list(root.threads) or None, samples=round(root.samples, 2),
            samples_of_others=round(root.foreign_samples, 2), waiters=root.waiters,
            processes=root.processes, hops=root.hops, chain=list(root.chain), waits_for=root.waits_for,
            cycle=list(root.cycle) or None, certain=root.certain if root.cycle else None,
            certainty="guessed" if root.guessed else "proven",
        )


@dataclass(slots=True)
class _Graph:
    """The waits as a graph of components: threads that wait for each other in a cycle are one component.

    `out` and `back`: edges by waiter, waiters by holder, without soft edges. `soft`: soft edges by holder. `home`: the
    component of a node. `order`: components, waiters before their holders.
    """

    out: dict[Node, list[Edge]] = field(default_factory=dict)
    back: dict[Node, list[Node]] = field(default_factory=dict)
    soft: dict[Node, list[Edge]] = field(default_factory=dict)
    components: list[list[Node]] = field(default_factory=list)
    home: dict[Node, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    def leaving(self, component: int) -> list[Edge]:
        """The edges from a component to others."""
        return [e for n in self.components[component] for e in self.out.get(n, ()) if self.home[e.holder] != component]

    def inside(self, component: int) -> list[Edge]:
        """The edges between members of a component."""
        return [e for n in self.components[component] for e in self.out.get(n, ()) if self.home[e.holder] == component]


def _graph(edges: tuple[Edge, ...]) -> _Graph:
    graph = _Graph()
    for edge in edges:
        if edge.soft:
            graph.soft.setdefault(edge.holder, []).append(edge)
        else:
            graph.out.setdefault(edge.waiter, []).append(edge)
            graph.back.setdefault(edge.holder, []).append(edge.waiter)
    nodes = dict.fromkeys(n for edge in edges for n in (edge.waiter, edge.holder))
    successors = {n: [e.holder for e in graph.out.get(n, ())] for n in nodes}
    graph.components = strongly_connected(successors)
    graph.home = {n: i for i, members in enumerate(graph.components) for n in members}
    graph.order = list(reversed(range(len(graph.components))))   # Tarjan finds holders before their waiters
    return graph


def _roots(got: Gathered, edges: tuple[Edge, ...]) -> tuple[Root, ...]:
    graph = _graph(edges)
    retained = _retain(graph, seen(got))
    longest = _longest(graph)
    by_process: dict[object, list[int]] = {}
    for i, amounts in enumerate(retained):
        # Threads of one process that are roots are one answer; a cycle is a separate answer.
        if amounts:
            by_process.setdefault(i if graph.inside(i) else ("process", graph.components[i][0][0]), []).append(i)
    sums = [sum(amounts.values()) for amounts in retained]
    order = sorted(by_process.values(), key=lambda group: -sum(sums[i] for i in group))
    ranked = [_root(got, graph, group, retained, longest) for group in order[:MAX_ROOTS]]
    ranked.sort(key=lambda r: (not (r.cycle and r.certain), -r.foreign_samples, -r.samples, -r.hops, r.node))
    return tuple(ranked)


def _retain(graph: _Graph, real: set[tuple[Node, Node]]) -> list[Origins]:
    """Samples of waiting that end at each component, by the process that waited. Waiters come before holders.

    `real`: the waits that were observed, not only concluded from those of another thread.
    """
    passing: list[Origins] = [{} for _ in graph.components]
    kept: list[Origins] = [{} for _ in graph.components]
    leaving = [graph.leaving(i) for i in range(len(graph.components))]
    totals = [float(sum(e.samples for e in edges)) for edges in leaving]

    def arrive(edge: Edge, flow: Origins) -> None:
        """Samples arrive at the holder of an edge: it passes on as many as it waited itself and keeps the rest."""
        j = graph.home[edge.holder]
        onward = min(1.0, totals[j] / edge.samples)
        _pour(passing[j], flow, onward)
        _pour(kept[j], flow, 1.0 - onward)

    for edge in (e for edges in graph.soft.values() for e in edges if e.samples):
        arrive(edge, _own(edge))
    for i in graph.order:
        for edge in graph.inside(i):
            if (edge.waiter, edge.holder) in real:
                _pour(kept[i], _own(edge), 1.0)
        for edge in leaving[i]:
            if edge.samples:
                flow = _own(edge) if (edge.waiter, edge.holder) in real else {}
                _pour(flow, passing[i], edge.samples / totals[i])
                arrive(edge, flow)
        passing[i] = {}
    return kept


def _own(edge: Edge) -> Origins:
    """The samples of an edge, by the process that waited."""
    return {edge.waiter[0]: float(edge.samples)}


def _pour(into: Origins, what: Origins, part: float) -> None:
    """Add `part` of each amount; beyond MAX_ORIGINS processes the rest is added up under None."""
    if part <= 0:
        return
    for origin, amount in what.items():
        if origin not in into and len(into) >= MAX_ORIGINS:
            origin = None
        into[origin] = into.get(origin, 0.0) + amount * part


def _longest(graph: _Graph) -> list[tuple[int, Edge | None]]:
    """For each component the length of the longest chain that ends at it, and the last edge of that chain."""
    best: list[tuple[int, Edge | None]] = [(0, None)] * len(graph.components)
    for holder, inputs in graph.soft.items():
        heaviest = max(inputs, key=lambda e: e.samples)
        best[graph.home[holder]] = (heaviest.hops, heaviest)
    for i in graph.order:
        for e in graph.leaving(i):
            j = graph.home[e.holder]
            length = best[i][0] + len(graph.components[i]) - 1 + e.hops
            known, last = best[j]
            if (length, e.samples) > (known, last.samples if last else 0):
                best[j] = (length, e)
    return best


def _root(got: Gathered, graph: _Graph, group: list[int], retained: list[Origins],
          longest: list[tuple[int, Edge | None]]) -> Root:
    """One answer: the components of `group`, which are the threads of one process or one cycle."""
    heaviest = max(group, key=lambda i: sum(retained[i].values()))
    deepest = max(group, key=lambda i: (longest[i][0], sum(retained[i].values())))
    everyone = [n for i in group for n in graph.components[i]]
    own_pids = {n[0] for n in everyone}
    cycle = _cycle(graph.components[heaviest], graph.out)
    hops, chain, guessed = _chain(got, graph, deepest, longest)
    if cycle:
        hops = max(hops, len(cycle) - 1)
        chain = chain or [_name(got, n) for n in [*cycle, cycle[0]]]
    node = max(graph.components[heaviest], key=lambda n: (len(graph.back.get(n, ())), n))
    waiters = _waiters(graph, everyone)
    origins = [(origin, amount) for i in group for origin, amount in retained[i].items()]
    return Root(
        node=node,
        command=got.names.get(node[0], "?"),
        threads=tuple(sorted({n[1] for n in everyone if n[1]})),
        samples=sum(amount for _, amount in origins),
        foreign_samples=sum(amount for origin, amount in origins if cycle or origin not in own_pids),
        waiters=len(waiters),
        processes=len({n[0] for n in waiters if cycle or n[0] not in own_pids}),
        hops=hops,
        chain=tuple(chain),
        waits_for=None if cycle else got.waits_for.get(node),
        cycle=tuple(_name(got, n) for n in cycle),
        certain=bool(cycle) and _lasting(got, cycle),
        guessed=guessed,
    )


def _waiters(graph: _Graph, holders: list[Node]) -> set[Node]:
    """The threads that wait for one of `holders`, directly or through others."""
    upstream = reach_back(holders, graph.back)
    waiters = {n for n in upstream if n[1] and n in graph.out}
    return waiters | {e.waiter for n in [*upstream, *holders] for e in graph.soft.get(n, ())}


def _cycle(members: list[Node], out: dict[Node, list[Edge]]) -> list[Node]:
    """A cycle through `members`; empty if they are a single node that does not wait for itself."""
    inside = set(members)
    start = min(members)
    if len(members) == 1:
        return [start] if any(e.holder == start for e in out.get(start, ())) else []
    # Breadth first from the start back to the start: the shortest cycle.
    came: dict[Node, Node] = {}
    queue = [start]
    for node in queue:
        for e in sorted(out.get(node, ()), key=lambda e: -e.samples):
            if e.holder == start:
                way = [node]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            if e.holder in inside and e.holder not in came:
                came[e.holder] = node
                queue.append(e.holder)
    return members


def _lasting(got: Gathered, cycle: list[Node]) -> bool:
    """Every wait of the cycle was seen in every sample, or the kernel reported a deadlock."""
    if any(n in got.deadlocked for n in cycle):
        return True
    if got.steps is None:
        return False
    for node, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        edge = got.edges.get((node, after))
        if edge is None or edge.samples < got.steps:
            return False
    return True


def _chain(got: Gathered, graph: _Graph, at: int,
           longest: list[tuple[int, Edge | None]]) -> tuple[int, list[str], bool]:
    """The longest chain that ends at component `at`: its length, its links from the waiter on, if one is a guess."""
    components, home = graph.components, graph.home
    hops, edge = longest[at]
    links: list[str] = []
    guessed = False
    while edge is not None and len(links) < 2 * MAX_CHAIN:
        links.append(_name(got, edge.holder))
        if edge.hops > 1:
            links.append(f"{edge.hops - 1} not named")
        guessed = guessed or edge.guessed
        before = None if edge.soft else longest[home[edge.waiter]][1]
        if before is None or (before.holder != edge.waiter and len(components[home[edge.waiter]]) == 1):
            links.append(_name(got, edge.waiter))
            break
        if before.holder != edge.waiter:
            links.append(_name(got, edge.waiter))
        edge = before
    return hops, links[::-1], guessed


def _name(got: Gathered, node: Node) -> str:
    pid, thread = node
    who = f"{got.names.get(pid, '?')} [{pid}]" if pid >= 0 else "?"
    return f"{who} thread {thread}" if thread else who


BUSY = 0.5
"""Part of the sampled time that a process must have used, in cores, to be named for it."""
LARGE = 0.5
"""Part of the machine's memory that a process must hold to be named for it."""
MOST = 5


def suspects(records: Iterable[Record], capture: str | None = None) -> Iterator[Record]:
    """The suspects of one report as `suspect` records: first those that did not respond, then the report's target, then
    those that used most CPU time, then those that hold most memory. Each process is named once.

    A process with a huge footprint can be both the one that hangs and the reason; its record has all of it.
    """
    report: Mapping[str, Any] = {}
    processes: list[Record] = []
    mains: dict[int, Record] = {}
    for each in records:
        if each["type"] == "spindump_report":
            report = each
        elif each["type"] == "spindump_process" and each.get("command") not in OBSERVERS:
            processes.append(each)
        elif each["type"] == "spindump_thread" and each.get("main") is True:
            mains.setdefault(each["process"], each)
    if report.get("format") == "snapshot":
        return  # a capture of Linux: its CPU times are those of whole lives
    span = report.get("sampled_s") or report.get("duration_s")
    memory = report.get("memory_total_bytes")
    target = report.get("pid") if report.get("event") != "panic" else None
    used = sorted((p for p in processes if span and (p.get("cpu_seconds") or 0.0) >= BUSY * span and p.get("pid") != 0),
                  key=lambda p: -float(p["cpu_seconds"]))
    held = sorted((p for p in processes if memory and (p.get("memory_bytes") or 0) >= LARGE * memory),
                  key=lambda p: -int(p["memory_bytes"]))
    named: set[int] = set()
    for reason, some in (
            ("unresponsive", [p for p in processes if p.get("unresponsive") is True]),
            ("target", [p for p in processes if target is not None and p.get("pid") == target]),
            ("cpu", used[:MOST] if report.get("format") != "stackshot" else []), ("memory", held[:MOST])):
        for process in some:
            if process["process"] not in named and len(named) < 4 * MOST:
                named.add(process["process"])
                yield _suspect(reason, process, mains.get(process["process"], {}), span, memory, capture)


def _suspect(reason: str, process: Record, main: Mapping[str, Any], span: float | None, memory: int | None,
             capture: str | None) -> Record:
    state, of = main.get("state"), main.get("samples")
    awake = sum(main.get(f"{word}_samples") or 0 for word in ("running", "runnable", "blocked", "suspended"))
    samples = max(0, of - awake) if of is not None and state in (None, "sleeping") else main.get(f"{state}_samples")
    return record(
        "suspect", capture=capture, reason=reason, pid=process.get("pid"), command=process["command"],
        thread_id=main.get("thread_id"), state=state, leaf=main.get("leaf"),
        samples=samples, of_samples=of,
        unresponsive_s=process.get("unresponsive_s"), cpu_seconds=process.get("cpu_seconds"), sampled_s=span,
        memory_bytes=process.get("memory_bytes"), memory_total_bytes=memory)
