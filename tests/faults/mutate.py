"""Damaged input: pieces cut, copied, exchanged, flipped, and words inserted that once broke a parser."""

from __future__ import annotations

import random
from collections.abc import Sequence

NUMBERS = (b"-1", b"0", b"9" * 19, b"18446744073709551615", b"18446744073709551616", b"9" * 400, b"9" * 5000,
           b"0x" + b"f" * 5000, b"1e999", b"NaN", b"-Infinity", b"1_000", b"0x10", b"\xd9\xa3", b"\xc2\xb2", b"1.5",
           b"+3", b" 7", b"")
"""What stands where a number should: beyond 64 bits, more digits than Python converts, digits that are not ASCII."""

WORDS = (b"\0", b"\n", b"\r\n", b"\x1b[2J", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\x85", b")",
         b"(", b") R 1", b"{", b"}", b"[" * 50, b"]", b'"', b"\\", b"=", b":", b",", b"#", b"\t", b" ", b"null",
         b"true", b"\\ud800", b"'; DROP TABLE x; --", b"%s%n", b"../..", b"A" * 300, b"kB", b"total=", b"\xef\xbb\xbf")

_DIGITS = frozenset(b"0123456789")


def mutate(data: bytes, rng: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """One to four changes."""
    out = bytearray(data)
    rand = rng.random
    for _ in range(1 + int(rand() * rand() * 4)):
        size = len(out)
        at = int(rand() * (size + 1))
        kind = int(rand() * 9)
        if kind == 0:
            del out[at:at + 1 + int(rand() * 30)]
        elif kind == 1:
            out[at:at] = rng.choice(words) if words and rand() < 0.5 else rng.choice(WORDS)
        elif kind == 2 and at < size:
            out[at] = int(rand() * 256)
        elif kind == 3 and at < size:
            out[at] ^= 1 << int(rand() * 8)
        elif kind == 4:
            start = int(rand() * (size + 1))
            out[at:at] = out[start:start + 1 + int(rand() * 60)]
        elif kind == 5:
            del out[at:]
        elif kind <= 7:
            while at < size and out[at] not in _DIGITS:
                at += 1
            end = at
            while end < size and out[end] in _DIGITS:
                end += 1
            if end > at:
                out[at:end] = rng.choice(NUMBERS)
        else:
            lines = bytes(out).split(b"\n")
            i, j = int(rand() * len(lines)), int(rand() * len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            out = bytearray(b"\n".join(lines))
    return bytes(out)
