"""Attention: compute the softmax of self-attention over fewer pairs (``--attention``).

Contract: ``attach(blocks, run) -> context manager``. Inside it the image tokens' self-attention
costs less. ``blocks`` is the list of ``models.blocks``; ``run.grid`` says rows and columns of image
tokens, ``run.branches`` which branches this call is for. State is born in ``attach``, keyed by
``run.key``, and dies with it. At its identity parameters a method is bit-equal to none.
``run.count["attention pairs"]`` takes the pairs of query and key that were computed, and
``run.count["attention pairs saved"]`` those that were not.

Helpers: ``dit_tools.nn.attention_control`` (replaces the softmax product of every family) and
``dit_tools.nn.window_attention``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import RunState


class Attention(ABC):
    """A rule for computing self-attention from fewer pairs of tokens."""

    info: ClassVar[MethodInfo]

    @property
    def remembers(self) -> bool:
        """Whether a call depends on the calls before it or on their number."""
        return self.info.name != "none"

    def compose(self, plan: Any) -> None:
        """Raise UsageError when the plan has a method that this one cannot run with.

        A window needs all of its tokens, and ``--tokens`` leaves some out.
        """
        if plan.tokens.info.name != "none":
            both = f"--attention {self.info.name} and --tokens {plan.tokens.info.name}"
            raise UsageError(f"{both}: a window needs all of its tokens", "give one of them")

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Hook the blocks until the context is left; ``blocks`` are ``core.blocks.Block``.

        Raises UnsupportedError when the blocks have no such attention.
        """
