"""One torch module to one ONNX graph, with the forward arguments' names as input names."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dit_tools.models.onnx_recipe import replaced_attribute

OPSET = 17


def trace(
    module: Any,
    inputs: Mapping[str, Any],
    output: str | Sequence[str],
    path: Path,
    dynamic: Mapping[str, Mapping[int, str]],
    opset: int = OPSET,
    weights: bool = True,
) -> None:
    """Write ``module(**inputs)`` as a graph with one output, or with those that are named.

    ``inputs``: example tensors by forward argument name. ``dynamic``: input or output name ->
    {axis: label}. Constants are not folded, so that initializers keep the parameters' names;
    without ``weights`` they stay inputs of that name, for ``shared_weights.attach`` to fill.
    The TorchScript exporter is used on purpose: the dynamo one gave a PixArt graph that ONNX
    Runtime refuses.
    """
    import torch

    names = list(inputs)
    outputs = [output] if isinstance(output, str) else list(output)

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *values: Any) -> Any:
            out = self.inner(**dict(zip(names, values, strict=True)))
            return out[0] if isinstance(out, tuple) and len(outputs) == 1 else out

    quiet = contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), quiet, torch.no_grad(), _traceable():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Positional().eval(),
            tuple(inputs.values()),
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes={key: dict(axes) for key, axes in dynamic.items()},
            opset_version=opset,
            export_params=weights,
            do_constant_folding=False,
            dynamo=False,
        )


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Inside the block some functions of torch are written in operations that ONNX has."""
    import torch
    from torch.nn import functional

    plain = functional.interpolate

    def interpolate(*arguments: Any, **keywords: Any) -> Any:
        return plain(*_nearest(arguments), **_nearest(keywords))

    with (
        replaced_attribute(functional, "rms_norm", _rms_norm),
        replaced_attribute(functional, "interpolate", interpolate),
        replaced_attribute(torch.Tensor, "squeeze", _squeeze),
        replaced_attribute(torch.Tensor, "movedim", _movedim),
    ):
        yield


def _rms_norm(x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """``x`` over the root of its mean square; without ``eps`` torch takes its type's step."""
    import torch

    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * (x.pow(2).mean(axes, keepdim=True) + eps).rsqrt()
    return scaled if weight is None else scaled * weight


def _nearest(given: Any) -> Any:
    """Arguments of ``interpolate`` whose mode ONNX knows; by whole factors the two are the same."""
    names = {"nearest-exact": "nearest"}
    if isinstance(given, tuple):
        return tuple(names.get(v, v) if isinstance(v, str) else v for v in given)
    return {k: names.get(v, v) if k == "mode" else v for k, v in given.items()}


def _squeeze(x: Any, dim: int) -> Any:
    """Drop an axis if it is 1 in the example; the tracer would write an If that is never right.

    ONNX Runtime rejects ``If(dimension == 1) Squeeze else Identity`` for the branch that does not.
    """
    return x.select(dim, 0) if int(x.shape[dim]) == 1 else x


def _movedim(x: Any, source: int, destination: int) -> Any:
    """Move one axis; the exporter writes a negative destination into the graph as it is."""
    order = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return x.permute(order)
