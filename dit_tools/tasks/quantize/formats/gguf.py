"""A folder whose transformer is a GGUF file, run by PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import Scheme
from dit_tools.tasks.quantize.format import Format, Tell

TYPES = {
    "Q8_0": "rtn",
    "Q5_1": "rtn:bits=5,group=32",
    "Q5_0": "rtn:bits=5,group=32",
    "Q4_1": "rtn:bits=4,group=32",
    "Q4_0": "rtn:bits=4,group=32",
    "F16": "rtn",
}
"""Type -> the scheme that is about as large, for forecasts."""


@method()
class Gguf(Format):
    """GGUF with diffusers' names of tensors, 32 weights a scale.

    The gguf library rounds to the nearest. With --scheme of four bits and groups of 32, such as
    q-diffusion:bits=4,group=32, a Q4_0 file holds the codes that the scheme chose. Layers outside
    of the blocks and adaLN get Q8_0 where the type has fewer bits; biases are F32.
    """

    type: str = param("Q4_0", "of the layers inside of blocks", choices=tuple(TYPES))

    def scheme(self, text: str | None) -> Scheme:
        """Schemes that fill the blocks of a Q4_0 file."""
        made = spec.parse("quantization", text or TYPES[self.type])
        layout = made.layout(4096, 4096)
        fits = layout.kind == "int" and layout.bits == 4 and layout.group == 32
        if text is not None and (
            not fits or layout.zero or layout.rank or layout.balance or layout.act or self.type != "Q4_0"
        ):
            raise UnsupportedError(
                f"--scheme {text}: a GGUF file of type {self.type} cannot hold it",
                "leave it out, or use type=Q4_0 with bits=4,group=32",
            )
        return made

    def plan(self, source: Any, wanted: Any, dry: bool) -> Any:
        """The layers; raises where the gguf library is missing."""
        from dit_tools.models.loading import gguf_file

        gguf_file.library()
        layers = super().plan(source, wanted, dry)
        if self.type != "F16":
            return layers
        plain = [replace(layer, layout=None, dtype="F16") for layer in layers.linear]
        return replace(layers, linear=tuple(plain))

    def make(self, source: Any, wanted: Any, trial: Any, tell: Tell) -> dict[str, Any]:
        """Refuse, calibrate where the scheme asks for it, write tensor by tensor, judge."""
        from dit_tools.tasks.quantize import gguf_writer

        self.plan(source, wanted, dry=False)
        return gguf_writer.make_gguf(source, wanted, self, trial, tell)
