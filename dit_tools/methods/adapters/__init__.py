"""Category of adapters: what `dit train` trains next to a model that stays as it is.

A method attaches itself to a frozen transformer by ``attach(network, blocks, seed)`` and gives what
``nn.adapters.Attached`` promises: parameters, which are the only ones with gradients, and tensors
to save. Attached and untrained, it changes no bit of the network's output. The file that a training
leaves is taken by ``--lora PATH[:SCALE]`` of the sampling commands, whatever the method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from dit_tools.core.blocks import Block
from dit_tools.core.registry import MethodInfo


class Adapter(ABC):
    """A small set of parameters that changes what a frozen network does."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def attach(self, network: Any, blocks: Sequence[Block], seed: int) -> Any:
        """Freeze ``network``, attach to its ``blocks`` (``Network.blocks()``); gives ``nn.adapters.Attached``.

        Raises UnsupportedError for a network in which there is nothing to adapt.
        """
