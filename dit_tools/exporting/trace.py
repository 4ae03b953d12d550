"""One torch module to one ONNX graph, with the forward arguments' names as input names."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPSET = 17


def trace(
    module: Any,
    inputs: Mapping[str, Any],
    output: str,
    path: Path,
    dynamic: Mapping[str, Mapping[int, str]],
) -> None:
    """Write ``module(**inputs)`` as a graph with one output.

    ``inputs``: example tensors by forward argument name. ``dynamic``: input or output name ->
    {axis: label}. Constants are not folded, so that initializers keep the parameters' names.
    The TorchScript exporter is used on purpose: the dynamo one gave a PixArt graph that ONNX
    Runtime refuses.
    """
    import torch

    names = list(inputs)

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *values: Any) -> Any:
            out = self.inner(**dict(zip(names, values, strict=True)))
            return out[0] if isinstance(out, tuple) else out

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Positional().eval(),
            tuple(inputs.values()),
            str(path),
            input_names=names,
            output_names=[output],
            dynamic_axes={key: dict(axes) for key, axes in dynamic.items()},
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    _settle_squeezes(path)


def _settle_squeezes(path: Path) -> None:
    """Replace ``If(dimension == 1) Squeeze else Identity`` by Identity.

    The tracer writes it for every ``tensor.squeeze(axis)`` whose size it cannot prove, and ONNX
    Runtime then rejects the branch that never runs. All our example inputs have longer axes there.
    """
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type != "If":
            continue
        branches = [list(a.g.node) for a in node.attribute]
        kinds = sorted(branch[-1].op_type for branch in branches)
        if kinds == ["Identity", "Squeeze"]:
            source = next(b[-1].input[0] for b in branches if b[-1].op_type == "Identity")
            node.CopyFrom(onnx.helper.make_node("Identity", [source], list(node.output)))
    onnx.save(model, path)
