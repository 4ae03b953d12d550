"""The progress bar: on stderr, and only where someone looks at it."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int | None, description: str, quiet: bool = False) -> Any:
    """A tqdm bar on stderr; silent with ``quiet`` and where stderr is not a terminal.

    Args:
        total: number of steps; None: not known.
        description: what is counted, in a word or two.
        quiet: the value of ``-q``.

    Returns:
        ``tqdm.tqdm``: a context manager with ``update(steps)``.
    """
    from tqdm import tqdm

    shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
    return tqdm(total=total, desc=description, disable=not shown, file=sys.stderr, dynamic_ncols=True)
