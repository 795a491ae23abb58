"""The processes that block others, as lines for people: from the result of the wait graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rogue_hunter.capture.waitgraph.graph import Blame, Root
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration, size, visible


def blame_lines(answer: Blame, limit: int = 10, suspects: Sequence[Record] = ()) -> Iterator[str]:
    """The result for people: one to three lines for each of the first `limit` roots, one for each suspect; control
    characters are escaped."""
    if not answer.roots:
        yield "no blocker found"
    yield from (visible(_suspect_line(each)) for each in suspects)
    for rank, root in enumerate(answer.roots[:limit], 1):
        yield from map(visible, _root_lines(rank, root))
    if answer.roots:
        deepest = max(answer.roots, key=lambda root: root.hops)
        if deepest.hops > answer.roots[0].hops:
            yield visible(f"the longest chain of all, {deepest.hops} hops, ends at {_process(deepest)}")
    if len(answer.roots) > limit:
        yield f"{len(answer.roots) - limit} more"
    if answer.unnamed:
        yield f"{count(answer.unnamed, 'wait')} without a known process"
    if answer.observers:
        yield f"left out: {count(answer.observers, 'wait')} of programs that make such reports"
    if answer.roots and answer.steps:
        yield f"samples are added up over threads; the report has {answer.steps} steps"


_STATES = {"running": "running in", "runnable": "waiting for a CPU in", "uninterruptible": "stuck in"}


def _suspect_line(each: Record) -> str:
    """`Editor [501] did not respond for 3.0s: its main thread was waiting in f (lib) for 990 of 1000 samples; ...`"""
    words = []
    if "leaf" in each:
        words.append(f"its main thread was {_STATES.get(each.get('state', ''), 'waiting in')} {each['leaf']}"
                     + (f" for {each['samples']} of {each['of_samples']} samples" if "samples" in each else ""))
    if each.get("cpu_seconds") and each.get("sampled_s"):
        words.append(f"CPU time {each['cpu_seconds']:.3g} s of {each['sampled_s']:.3g} s sampled")
    if each.get("memory_bytes"):
        of = f" on a machine of {size(each['memory_total_bytes'])}" if each.get("memory_total_bytes") else ""
        words.append(f"memory {size(each['memory_bytes'])}{of}")
    lasted = f" for {duration(each['unresponsive_s'])}" if "unresponsive_s" in each else ""
    why = {"unresponsive": f"did not respond{lasted}", "target": "is what the report is about",
           "cpu": "used most CPU time", "memory": "holds most memory"}[each["reason"]]
    return f"{each['command']} [{each.get('pid', '?')}] {why}" + (f": {'; '.join(words)}" if words else "")


def _root_lines(rank: int, root: Root) -> Iterator[str]:
    """A root: what it blocks, the longest chain that ends at it, and what it waits for itself."""
    if root.cycle:
        word = "deadlock" if root.certain else "possible deadlock"
        yield f"{rank}. {word}: {' -> '.join([*root.cycle, root.cycle[0]])}"
        yield f"   {count(root.waiters, 'thread')} in it or blocked by it"
    else:
        threads = f" thread {', '.join(root.threads[:3])}" if root.threads else ""
        more = f" and {len(root.threads) - 3} more" if len(root.threads) > 3 else ""
        own = f", {root.samples:.6g} with its own" if root.samples > root.foreign_samples else ""
        yield (f"{rank}. {_process(root)}{threads}{more} blocks {count(root.waiters, 'thread')} of "
               f"{count(root.processes, 'other process')}: {root.foreign_samples:.6g} samples{own}")
    if root.chain and not (root.cycle and root.hops < len(root.cycle)):
        guess = ", guessed in part" if root.guessed else ""
        yield f"   longest chain, {count(root.hops, 'hop')}{guess}: {' -> '.join(root.chain)}"
    if root.waits_for:
        yield f"   itself waiting in {root.waits_for}"


def _process(root: Root) -> str:
    return f"{root.command} [{root.node[0] if root.node[0] >= 0 else '?'}]"


def count(number: int, thing: str) -> str:
    """`1 thread`, `2 threads`, `2 other processes`."""
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")
