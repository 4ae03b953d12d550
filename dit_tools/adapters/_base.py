"""The contract of an adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from dit_tools.core.registry import MethodInfo


class Adapter(ABC):
    """A small set of parameters that changes what a frozen network does."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def attach(self, network: Any, seed: int) -> Any:
        """Freeze ``network`` and attach to it; gives ``nn.adapters.Attached``.

        Raises UnsupportedError for a network in which there is nothing to adapt.
        """
