"""The network's own attention."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.registry import method
from dit_tools.core.run import RunState
from dit_tools.methods.sparse_attention import Attention


@method(identity={})
class NoAttention(Attention):
    """Every token attends to every other, as the network was trained."""

    def compose(self, plan: Any) -> None:
        """Goes with everything."""

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()
