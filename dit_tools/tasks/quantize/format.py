"""The contract of an output format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dit_tools.core import spec
from dit_tools.core.registry import MethodInfo
from dit_tools.methods.quantization import Scheme
from dit_tools.tasks.quantize.layers import Layers

Tell = Callable[[dict[str, Any]], None]


class Format:
    """A kind of output. ``mixed``: layers may have different numbers of bits (``--max-loss``)."""

    info: ClassVar[MethodInfo]
    mixed: ClassVar[bool] = False

    def scheme(self, text: str | None) -> Scheme:
        """The scheme that ``--scheme`` asks for, or the target's own.

        Raises UsageError or UnsupportedError where the target cannot hold it.
        """
        return spec.parse("quantization", text or "rtn")

    def plan(self, source: Any, wanted: Any, dry: bool) -> Layers:
        """The layers as they will lie, refusing everything that can be refused, without weights."""
        from dit_tools.tasks.quantize import packed_folder

        return packed_folder.preflight(source, wanted, dry)

    def make(self, source: Any, wanted: Any, trial: Any, tell: Tell) -> dict[str, Any]:
        """Write ``wanted.output``; returns the facts of its ``quantize.json``."""
        raise NotImplementedError
