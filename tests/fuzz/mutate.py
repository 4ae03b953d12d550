"""Damage as files have it: flipped bits, cuts, repeats, hostile words; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

WORDS = (
    *(b"[" * 500, b'{"a":' * 300, b"9" * 5000, b"1e999", b"-1", b"NaN", b"null", b"true", b"[]", b"{}", b'""'),
    *(b"\\ud800", b"\xff\xfe", b"\0", b"\xe2\x80\xa8", b"\x1b]0;x\x07", b"--", b"=", b"../..", b'"', b"'", b"\\"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"16384", b"4294967296", b"9223372036854775808"),
)
LONGEST = 1 << 16  # bytes of an input


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the seeds with one to six changes."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.randrange(len(content) + 1)
        span = min(chance.choice((1, 2, 4, 16, 200)), len(content) - place)
        kind = chance.randrange(6)
        if kind == 0 and span:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place : place + span] = chance.randbytes(span)
        elif kind == 2:
            del content[place : place + span]
        elif kind == 3:
            content[place:place] = content[place : place + span] * chance.choice((1, 3, 50))
        elif kind == 4:
            content[place : place + chance.choice((0, span))] = chance.choice(WORDS)
        elif len(content) > 8:
            del content[chance.randrange(8, len(content)) :]
    return bytes(content[:LONGEST])
