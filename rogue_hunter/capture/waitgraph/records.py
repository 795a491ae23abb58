"""The result of the wait graph as records and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from rogue_hunter.capture.waitgraph.graph import Blame
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import visible


def blame_records(answer: Blame, capture: str | None = None) -> Iterator[Record]:
    """The answer as `blame` records, the one that blocks most first. `capture`: key of the capture it is about."""
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


def blame_lines(answer: Blame, limit: int = 10) -> Iterator[str]:
    """The answer for people, one to three lines a root; control characters in names are escaped."""
    if not answer.roots:
        yield "no blocker found"
        if answer.unnamed:
            yield f"{answer.unnamed} wait{'' if answer.unnamed == 1 else 's'} without a known process"
        return
    steps = f" of {answer.steps}" if answer.steps else ""
    for rank, root in enumerate(answer.roots[:limit], 1):
        others = f"{root.processes} other process{'' if root.processes == 1 else 'es'}"
        if root.cycle:
            word = "deadlock" if root.certain else "possible deadlock"
            yield visible(f"{rank}. {word}: {' -> '.join([*root.cycle, root.cycle[0]])}")
            yield visible(f"   {root.waiters} thread{'' if root.waiters == 1 else 's'} in it or blocked by it")
        else:
            threads = f" thread {', '.join(root.threads[:3])}" if root.threads else ""
            more = f" and {len(root.threads) - 3} more" if len(root.threads) > 3 else ""
            pid = root.node[0] if root.node[0] >= 0 else "?"
            own = f", {root.samples:.6g} with its own" if root.samples > root.foreign_samples else ""
            yield visible(f"{rank}. {root.command} [{pid}]{threads}{more} blocks {root.waiters} "
                          f"thread{'' if root.waiters == 1 else 's'} of {others}: "
                          f"{root.foreign_samples:.6g} samples{own}")
        if root.chain and not (root.cycle and root.hops < len(root.cycle)):
            guess = ", guessed in part" if root.guessed else ""
            yield visible(f"   longest chain, {root.hops} hop{'' if root.hops == 1 else 's'}{guess}: "
                          f"{' -> '.join(root.chain)}")
        if root.waits_for:
            yield visible(f"   itself waiting in {root.waits_for}")
    deepest = max(answer.roots, key=lambda root: root.hops)
    if deepest.hops > answer.roots[0].hops:
        pid = deepest.node[0] if deepest.node[0] >= 0 else "?"
        yield visible(f"the longest chain of all, {deepest.hops} hops, ends at {deepest.command} [{pid}]")
    left = len(answer.roots) - limit
    if left > 0:
        yield f"{left} more"
    if answer.unnamed:
        yield f"{answer.unnamed} wait{'' if answer.unnamed == 1 else 's'} without a known process"
    if steps:
        yield f"samples are added up over threads; the report has {answer.steps} steps"
