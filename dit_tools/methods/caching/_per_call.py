"""The network seen as one block, for caches of whole calls, which run on every backend."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import Block, BlockSpec
from dit_tools.methods.caching._per_stack import Skipping

WHOLE = Block(0, "network", None, BlockSpec())
"""A block that gives one array."""


class Forecasting:
    """A network some of whose outputs are forecast; ``skipping`` knows one block, ``WHOLE``."""

    def __init__(self, network: Any, skipping: Skipping):
        self._network, self._skipping = network, skipping

    def __call__(self, **inputs: Any) -> Array:
        """The raw output, computed or forecast."""
        return self._skipping.block(0, lambda: self._network(**inputs), (), {"hidden_states": None})

    def blocks(self) -> list[Any]:
        """Those of the network."""
        return self._network.blocks()
