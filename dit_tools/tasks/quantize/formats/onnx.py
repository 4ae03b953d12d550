"""A folder whose transformer is an ONNX graph in few bits, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import Scheme
from dit_tools.tasks.quantize.format import Format, Tell

FORMS = ("dynamic", "static", "int4", "fp16")
REFUSED = {
    ("dynamic", "cuda"): "scales that come with each call are a matter of CPUs",
    ("dynamic", "tensorrt"): "it has no DynamicQuantizeLinear",
    ("int4", "tensorrt"): "it has no MatMulNBits",
}
"""Pairs of form and provider that cannot work, with the reason."""


@method()
class Onnx(Format):
    """A graph for ONNX Runtime: int8, four bits or half precision.

    ``dynamic``: int8 weights and activations whose scales come with each call, the fastest on CPUs.
    ``static``: int8 in QuantizeLinear and DequantizeLinear nodes with calibrated scales. ``int4``:
    what --scheme packs (rtn, q-diffusion, svd, vidit-q at four bits), as MatMulNBits; with act=8
    products are made in int8. ``fp16``: half precision. The graph is the model's own or is
    exported for the occasion, and then only for the families that 'dit export' covers. ``beside``
    keeps the model's own graphs and weights; --dtype int8 then runs the new one.
    """

    form: str = param("dynamic", "of weights and activations", choices=FORMS)
    provider: str = param("cpu", "where it is meant to run", choices=("cpu", "cuda", "tensorrt"))
    beside: bool = param(False, "a whole model, with transformer.int8.onnx next to its own graphs")

    def scheme(self, text: str | None) -> Scheme:
        """Four-bit schemes for ``int4``; the other forms have none."""
        reason = REFUSED.get((self.form, self.provider))
        if reason:
            raise UnsupportedError(
                f"--target onnx: form={self.form} cannot run on {self.provider}, {reason}",
                "use form=static or form=fp16",
            )
        if self.beside and self.form != "dynamic":
            raise UsageError(
                f"--target onnx: beside=true is for form=dynamic, not {self.form}", "leave one of them out"
            )
        if self.form != "int4":
            if text is not None:
                raise UsageError(
                    f"--scheme {text}: form={self.form} of --target onnx is a scheme of its own",
                    "leave it out, or use --target onnx:form=int4",
                )
            return spec.parse("quantization", "rtn")
        made = spec.parse("quantization", text or "rtn:bits=4,group=32,act=8,clip=mse")
        from dit_tools.tasks.export.nbits import refusal

        why = refusal(made.layout(4096, 4096))
        if why:
            raise UnsupportedError(
                f"--scheme {text}: {why}, which --target onnx:form=int4 cannot hold",
                "use bits=4 and a group of 16 to 256",
            )
        return made

    def plan(self, source: Any, wanted: Any, dry: bool) -> Any:
        """Layers of the scheme; raises where the model cannot be exported."""
        from dit_tools.tasks.quantize import onnx_graphs

        return onnx_graphs.preflight(source, wanted, self, dry)

    def make(self, source: Any, wanted: Any, trial: Any, tell: Tell) -> dict[str, Any]:
        """Export where needed, calibrate, write, judge."""
        from dit_tools.tasks.quantize import onnx_graphs, onnx_sidecar

        kind = onnx_sidecar if self.beside else onnx_graphs
        return kind.make(source, wanted, self, trial, tell)
