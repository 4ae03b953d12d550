"""A folder of int8 layers that PyTorch runs with torchao's kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import Scheme
from dit_tools.tasks.quantize.format import Format, Tell

SCHEMES = {"dynamic": "rtn:act=8", "weights": "rtn"}


@method()
class Torchao(Format):
    """A safetensors folder as of --target folder, in int8, run by torchao on a CPU or on CUDA.

    ``dynamic``: int8 weights and activations, a scale per token as they come. ``weights``: int8
    weights, activations as they are. --scheme may be any of eight bits with a scale a row, such as
    q-diffusion:bits=8. Needs torchao, here and where the folder is used; layers that its kernels
    cannot run stay with ours.
    """

    form: str = param("dynamic", "what is int8", choices=tuple(SCHEMES))

    def scheme(self, text: str | None) -> Scheme:
        """Eight bits with a scale a row, and activations as ``form`` has them."""
        from dit_tools.models.backends.torchao_kernels import fits

        made = spec.parse("quantization", text or SCHEMES[self.form])
        layout = made.layout(4096, 4096)
        if not fits(layout) or bool(layout.act) != (self.form == "dynamic"):
            act = "act=8" if self.form == "dynamic" else "act=0"
            raise UnsupportedError(
                f"--scheme {text}: form={self.form} of --target torchao cannot run it",
                f"use bits=8 and {act}, or --target folder",
            )
        return made

    def plan(self, source: Any, wanted: Any, dry: bool) -> Any:
        """The layers; raises where torchao is missing."""
        from dit_tools.models.backends import torchao_kernels

        torchao_kernels.library()
        return super().plan(source, wanted, dry)

    def make(self, source: Any, wanted: Any, trial: Any, tell: Tell) -> dict[str, Any]:
        """Refuse what cannot run, then as ``folder``."""
        from dit_tools.models.backends import torchao_kernels
        from dit_tools.models.loading.torch_loader import pick_device
        from dit_tools.tasks.quantize.quantize import quantize

        torchao_kernels.library()
        torchao_kernels.check_device(pick_device(trial.device))
        return quantize(source, replace(wanted, target=spec.format(self)), trial, tell)
