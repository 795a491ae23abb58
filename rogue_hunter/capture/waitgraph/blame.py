"""Who holds up whom: the waits of a report as a graph, followed to their roots.

A node is a thread, or a process where the kernel does not say which of its threads is waited for. A wait is an edge
from the waiter to the holder, weighted with the samples in which it was seen. A holder that itself waits passes the
blame on, but of each wait never more than it waited itself: of 14 samples spent waiting for a thread that was blocked
for 12, 2 end at that thread and 12 go on to whoever blocked it, split by weight. Members of a cycle hold each other
up: the cycle is the root, and a deadlock when each of its waits lasted through all samples.

A wait for input (reading a pipe or a socket) is soft: whoever has the other end could end it, but a server that waits
for its next client is idle and not held up. Such a wait is a source of blame and never passes blame on, so two idle
ends of one socket are no deadlock.

The rank is by the samples that other processes spent waiting: a thread pool that waits for one of its own threads is
that process's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable

from rogue_hunter.capture.waitgraph.builder import (
    Blame,
    Edge,
    Gathered,
    Node,
    Root,
    follow_processes,
    gather,
    seen,
    take,
)
from rogue_hunter.capture.waitgraph.graph import reach_back, strongly_connected, topological
from rogue_hunter.stream.tick import Record

Origins = dict[int | None, float]
"""Samples by the process that spent them waiting."""

MAX_ORIGINS = 1000
MAX_CHAIN = 32
"""Links of a chain that are said."""
MAX_ROOTS = 100
"""Roots whose waiters are counted and whose chain is followed."""


def blame(records: Iterable[Record]) -> Blame:
    """The answer for the records of one report or of one capture, in any order. Other record types are passed over."""
    got = gather(records)
    for each in got.blockers:
        take(got, each)
    follow_processes(got)
    edges = tuple(got.edges.values())
    roots = _roots(got, edges) if edges else ()
    return Blame(roots, edges, got.unnamed, got.steps)


def _roots(got: Gathered, edges: tuple[Edge, ...]) -> tuple[Root, ...]:
    out: dict[Node, list[Edge]] = {}
    back: dict[Node, list[Node]] = {}
    soft: dict[Node, list[Edge]] = {}
    for edge in edges:
        if edge.soft:
            soft.setdefault(edge.holder, []).append(edge)
        else:
            out.setdefault(edge.waiter, []).append(edge)
            back.setdefault(edge.holder, []).append(edge.waiter)
    nodes = dict.fromkeys(n for edge in edges for n in (edge.waiter, edge.holder))
    successors = {n: [e.holder for e in out.get(n, ())] for n in nodes}
    components = strongly_connected(successors)
    home = {n: i for i, members in enumerate(components) for n in members}
    retained = _retain(components, home, out, soft, seen(got))
    longest = _longest(components, home, out, soft)
    ranked: list[Root] = []
    by_process: dict[object, list[int]] = {}
    for i, amounts in enumerate(retained):
        members = components[i]
        cyclic = len(members) > 1 or any(e.holder == members[0] for e in out.get(members[0], ()))
        # Threads of one process that are roots are one answer; a cycle is an answer of its own.
        if amounts:
            by_process.setdefault(i if cyclic else ("process", members[0][0]), []).append(i)
    sums = [sum(amounts.values()) for amounts in retained]
    order = sorted(by_process.values(), key=lambda group: -sum(sums[i] for i in group))
    for group in order[:MAX_ROOTS]:
        ranked.append(_root(got, group, components, retained, out, back, soft, longest))
    ranked.sort(key=lambda r: (not (r.cycle and r.certain), -r.foreign_samples, -r.samples, -r.hops, r.node))
    return tuple(ranked)


def _retain(components: list[list[Node]], home: dict[Node, int], out: dict[Node, list[Edge]],
            soft: dict[Node, list[Edge]], real: set[tuple[Node, Node]]) -> list[Origins]:
    """Samples of waiting that end at each component, by the process that waited. Waiters come before holders."""
    passing: list[Origins] = [{} for _ in components]
    kept: list[Origins] = [{} for _ in components]
    order = topological(components, home, {n: [e.holder for e in edges] for n, edges in out.items()})
    leaving = [[e for n in members for e in out.get(n, ()) if home[e.holder] != i]
               for i, members in enumerate(components)]
    totals = [float(sum(e.samples for e in edges)) for edges in leaving]
    for holder, inputs in soft.items():
        j = home[holder]
        for e in inputs:
            if e.samples:
                onward = min(1.0, totals[j] / e.samples)
                _pour(passing[j], {e.waiter[0]: float(e.samples)}, onward)
                _pour(kept[j], {e.waiter[0]: float(e.samples)}, 1.0 - onward)
    for i in order:
        for n in components[i]:
            for e in out.get(n, ()):
                if home[e.holder] == i and (e.waiter, e.holder) in real:
                    _pour(kept[i], {e.waiter[0]: float(e.samples)}, 1.0)
        for e in leaving[i]:
            if not e.samples:
                continue
            j = home[e.holder]
            onward = min(1.0, totals[j] / e.samples)
            flow: Origins = {e.waiter[0]: float(e.samples)} if (e.waiter, e.holder) in real else {}
            _pour(flow, passing[i], e.samples / totals[i])
            _pour(passing[j], flow, onward)
            _pour(kept[j], flow, 1.0 - onward)
        passing[i] = {}
    return kept


def _pour(into: Origins, what: Origins, part: float) -> None:
    """Add `part` of each amount; beyond MAX_ORIGINS processes they are no longer told apart."""
    if part <= 0:
        return
    for origin, amount in what.items():
        if origin not in into and len(into) >= MAX_ORIGINS:
            origin = None
        into[origin] = into.get(origin, 0.0) + amount * part


def _longest(components: list[list[Node]], home: dict[Node, int], out: dict[Node, list[Edge]],
             soft: dict[Node, list[Edge]]) -> list[tuple[int, Edge | None]]:
    """For each component the length of the longest chain that ends at it, and the last edge of that chain."""
    best: list[tuple[int, Edge | None]] = [(0, None)] * len(components)
    for holder, inputs in soft.items():
        heaviest = max(inputs, key=lambda e: e.samples)
        best[home[holder]] = (heaviest.hops, heaviest)
    for i in topological(components, home, {n: [e.holder for e in edges] for n, edges in out.items()}):
        inside = len(components[i]) - 1
        for n in components[i]:
            for e in out.get(n, ()):
                j = home[e.holder]
                length = best[i][0] + inside + e.hops
                known, last = best[j]
                if j != i and (length, e.samples) > (known, last.samples if last else 0):
                    best[j] = (length, e)
    return best


def _root(got: Gathered, group: list[int], components: list[list[Node]], retained: list[Origins],
          out: dict[Node, list[Edge]], back: dict[Node, list[Node]], soft: dict[Node, list[Edge]],
          longest: list[tuple[int, Edge | None]]) -> Root:
    heaviest = max(group, key=lambda i: sum(retained[i].values()))
    deepest = max(group, key=lambda i: (longest[i][0], sum(retained[i].values())))
    members = components[heaviest]
    node = max(members, key=lambda n: (len(back.get(n, ())), n))
    everyone = [n for i in group for n in components[i]]
    cycle = _cycle(components[heaviest], out)
    upstream = reach_back(everyone, back)
    waiters = {n for n in upstream if n[1] and n in out}
    waiters |= {e.waiter for n in [*upstream, *everyone] for e in soft.get(n, ())}
    mine = {n[0] for n in everyone}
    hops, chain, guessed = _chain(got, deepest, components, longest)
    if cycle:
        hops = max(hops, len(cycle) - 1)
        chain = chain or [_name(got, n) for n in [*cycle, cycle[0]]]
    certain = bool(cycle) and _lasting(got, cycle, out)
    return Root(
        node, got.names.get(node[0], "?"), tuple(sorted({n[1] for n in everyone if n[1]})),
        sum(sum(retained[i].values()) for i in group),
        sum(amount for i in group for origin, amount in retained[i].items() if origin not in mine or cycle),
        len(waiters),
        len({n[0] for n in waiters} - mine) if not cycle else len({n[0] for n in waiters}),
        hops, tuple(chain), None if cycle else got.waits_for.get(node),
        tuple(_name(got, n) for n in cycle), certain, guessed,
    )


def _cycle(members: list[Node], out: dict[Node, list[Edge]]) -> list[Node]:
    """A way round through `members`, or nothing when they are a single node that does not wait for itself."""
    inside = set(members)
    start = min(members)
    if len(members) == 1:
        return [start] if any(e.holder == start for e in out.get(start, ())) else []
    # Breadth first from the start back to the start: the shortest way round.
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


def _lasting(got: Gathered, cycle: list[Node], out: dict[Node, list[Edge]]) -> bool:
    """Every wait of the cycle was there in every sample, or the kernel called it a deadlock."""
    if any(n in got.deadlocked for n in cycle):
        return True
    if got.steps is None:
        return False
    for node, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        edge = got.edges.get((node, after))
        if edge is None or edge.samples < got.steps:
            return False
    return True


def _chain(got: Gathered, at: int, components: list[list[Node]],
           longest: list[tuple[int, Edge | None]]) -> tuple[int, list[str], bool]:
    """The longest chain that ends at component `at`: its length, its links from the waiter on, if one is a guess."""
    home = {n: i for i, members in enumerate(components) for n in members}
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
