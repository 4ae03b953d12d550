"""No cache: every block is computed at every step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.registry import method
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache


@method(identity={})
class NoCache(Cache):
    """Compute everything."""

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()
