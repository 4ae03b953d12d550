"""Guidance branches: the named ways of calling the network that guidance combines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Branch:
    """One way of calling the network: a named condition (``cond`` or ``uncond``).

    ``perturb(blocks)`` gives a context in which the network is changed; such a branch has a name
    of its own and the ``condition`` of another one, and gets a network call of its own.
    """

    name: str
    condition: str = ""  # empty: the condition that has the branch's name
    perturb: Callable[[Sequence[Any]], AbstractContextManager[None]] | None = None


COND = Branch("cond")
"""The call with the prompt."""
UNCOND = Branch("uncond")
"""The call with the negative prompt, or with none."""
