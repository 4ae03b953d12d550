"""Helpers: a run whose watch chooses the tokens of every network call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.run import RunState
from dit_tools.methods.token_reduction import Watch


class Choosing(Watch, ABC):
    """A watch that says before every network call which tokens it computes."""

    memory: ClassVar[Callable[[Any], Any] | None] = None
    """A method that gives the ``nn.narrowing.Memory`` of the current call, or None; a watch without
    it lets nobody attend to tokens that are left out."""

    @abstractmethod
    def choose(self) -> Array | None:
        """The tokens of a network call (b, n); None for all of them."""


@contextmanager
def compute_subset(watch: Choosing, blocks: Sequence[Any], run: RunState, name: str) -> Iterator[Watch]:
    """Hook the blocks so that they compute what ``watch`` chooses; ``name`` is the method's.

    Raises UnsupportedError for blocks that cannot run on some of their tokens.
    """
    from dit_tools.nn.token_subset import TokenSubset

    narrowing = TokenSubset(blocks, run, watch.choose, f"--tokens {name}")
    remember = watch.memory
    if remember is not None:
        narrowing.memory = remember
    with narrowing.attached(remember=remember is not None):
        yield watch
