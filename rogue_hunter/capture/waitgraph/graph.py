"""Graphs as dictionaries: cycles, order, reach. Nothing here recurses: a report may hold a chain of 6,000 waits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

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


def topological(components: Sequence[Sequence[N]], home: Mapping[N, int],
                successors: Mapping[N, Sequence[N]]) -> list[int]:
    """Indices of `components` so that every waiter comes before its holders."""
    waiting = [0] * len(components)
    after: list[set[int]] = [set() for _ in components]
    for i, members in enumerate(components):
        for node in members:
            for holder in successors.get(node, ()):
                j = home[holder]
                if j != i and j not in after[i]:
                    after[i].add(j)
                    waiting[j] += 1
    ready = [i for i, n in enumerate(waiting) if n == 0]
    for i in ready:
        for j in after[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                ready.append(j)
    return ready


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
