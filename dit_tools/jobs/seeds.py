"""The value of ``--seed``: numbers, lists, ranges, and -1 for a random one."""

from __future__ import annotations

import re
import secrets

from dit_tools.core.errors import UsageError

MAX_SEED = 2**63 - 1
MAX_SEEDS = 100_000
RANDOM_BITS = 32  # short enough to copy by hand, and every generator takes it
_PART = re.compile(r"([0-9]{1,30})(?:\.\.([0-9]{1,30}))?", re.ASCII)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read ``42``, ``1,2,3``, ``10..20`` (both ends included), ``-1`` (random), and mixes.

    Order and repetitions are kept. Each ``-1`` is drawn again.

    Returns:
        1 to 100,000 seeds, each in 0..2**63-1.

    Raises:
        UsageError: anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        part = part.strip()
        if part == "-1":
            _check(text, 0, 0, len(seeds))
            seeds.append(secrets.randbits(RANDOM_BITS))
            continue
        if not (match := _PART.fullmatch(part)):
            shown = f"'{part[:40]}' is no seed" if part else "a seed is missing"
            raise UsageError(f"--seed {text[:60]}: {shown}", "give 42, 1,2,3, 10..20 or -1")
        first, last = int(match[1]), int(match[2] or match[1])
        _check(text, first, last, len(seeds))
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


def _check(text: str, first: int, last: int, so_far: int) -> None:
    option = f"--seed {text[:60]}"
    if max(first, last) > MAX_SEED:
        raise UsageError(f"{option}: too large", f"the largest seed is {MAX_SEED}")
    if last < first:
        raise UsageError(f"{option}: runs backwards", f"did you mean {last}..{first}?")
    if so_far + last - first + 1 > MAX_SEEDS:
        raise UsageError(f"{option}: more than {MAX_SEEDS} seeds", "split the run")
