"""A folder in diffusers format whose transformer has packed layers, run by PyTorch."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method
from dit_tools.tasks.quantize.format import Format, Tell


@method()
class Folder(Format):
    """A safetensors folder with packed layers, made plain or multiplied in int8 by PyTorch."""

    mixed = True

    def make(self, source: Any, wanted: Any, trial: Any, tell: Tell) -> dict[str, Any]:
        """Refuse, calibrate, choose bits, write, judge."""
        from dit_tools.tasks.quantize.quantize import quantize

        return quantize(source, wanted, trial, tell)
