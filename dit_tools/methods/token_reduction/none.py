"""All tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.registry import method
from dit_tools.core.run import RunState
from dit_tools.methods.token_reduction import Tokens, Watch


@method(identity={})
class AllTokens(Tokens):
    """Compute every token at every step."""

    def compose(self, plan: Any) -> None:
        """Goes with everything."""

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[Watch]:
        """Hooks nothing."""
        return nullcontext(Watch())
