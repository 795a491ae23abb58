"""The call tree of one thread, reduced while it is read to its heaviest stack.

    1001  start + 1 (libdyld.dylib + 91093) [0x7fff57e143d5]
      1001  main + 12 (tool + 2490) [0x1064309ba]
       *1001  ipc_mqueue_receive_continue + 0 (kernel + 1651808) [0xffffff8000393460]

The indentation is the depth; `*` marks a frame of the kernel. The heaviest stack is the one whose innermost frame has
the most samples; among equals the first (a heavy report sorts by count, a timeline by time).
"""

from __future__ import annotations

import re

from rogue_hunter.capture.spindump.decode import text

MAX_FRAMES = 40
"""The innermost frames are kept. Real stacks go down to 120; the innermost one is what a thread waits in."""
FRAME_LIMIT = 160

_COUNT = re.compile(rb"\*?[0-9]{1,12}\s+")
_TAIL = re.compile(rb"\s*\[0x[0-9a-fA-F]{1,16}\].*$", re.DOTALL)
_OFFSETS = re.compile(rb" \+ [0-9]{1,20}(?=[ )]|$)")


class Stack:
    """The heaviest stack of one thread; add its frames in the order of the report."""

    __slots__ = ("_best", "_best_count", "_keep", "_last", "_last_indent", "_path")

    def __init__(self, keep_frames: bool) -> None:
        self._keep = keep_frames
        self._path: list[tuple[int, bytes]] = []
        self._last: bytes = b""
        self._last_indent = -1
        self._best: list[bytes] = []
        self._best_count = -1

    def add(self, indent: int, frame: bytes) -> None:
        """Add a frame; `frame` is the line without its indentation."""
        if indent <= self._last_indent:
            self._leaf()
            if self._keep:
                path = self._path
                while path and path[-1][0] >= indent:
                    path.pop()
        if self._keep:
            self._path.append((indent, frame))
            if len(self._path) > 4 * MAX_FRAMES:
                del self._path[: 2 * MAX_FRAMES]
        self._last, self._last_indent = frame, indent

    def _leaf(self) -> None:
        """The frame added last was the innermost of its stack."""
        last = self._last
        digits = (last[1:14] if last[:1] == b"*" else last[:13]).split(b" ", 1)[0]
        count = int(digits) if digits.isdigit() else 0
        if count > self._best_count:
            self._best_count = count
            self._best = [f for _, f in self._path[-MAX_FRAMES:]] if self._keep else [last]

    def heaviest(self) -> tuple[list[str], str | None]:
        """The frames, innermost first (empty unless they are kept), and the innermost one."""
        if self._last_indent >= 0:
            self._leaf()
        if not self._best:
            return [], None
        frames = [frame_text(f) for f in reversed(self._best)]
        return (frames if self._keep else []), frames[0]


def frame_text(frame: bytes) -> str:
    """`start (libdyld.dylib)` of a whole frame line: without samples, offsets, address and what follows."""
    frame = _COUNT.sub(b"", frame[:4096].strip(), count=1)
    return text(_OFFSETS.sub(b"", _TAIL.sub(b"", frame)), FRAME_LIMIT)
