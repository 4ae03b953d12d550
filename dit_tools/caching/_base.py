"""The verb of the room: attach to a network's blocks for the length of one run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import Run


class Cache(ABC):
    """A rule for reusing or forecasting block outputs."""

    info: ClassVar[MethodInfo]

    def around(self, network: Any, run: Run) -> Any:
        """The network of one run, for a cache of whole network calls; else the network itself."""
        return network

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: Run) -> AbstractContextManager[None]:
        """Hook the blocks until the context is left; ``blocks`` are ``models.blocks.Block``."""
