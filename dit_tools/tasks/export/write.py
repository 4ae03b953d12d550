"""A ``Graph`` becomes a file: traced, given its weights, checked against torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError
from dit_tools.models.backends.onnx_split import Subgraphs
from dit_tools.models.onnx_session import open_session
from dit_tools.tasks.export import subgraphs
from dit_tools.tasks.export.graphs import Graph
from dit_tools.tasks.export.shared_weights import attach_weights
from dit_tools.tasks.export.trace import trace

TOLERANCE = 1e-3
"""Largest difference to torch that is kept, relative to the output's largest absolute value."""

TINY = 1e-30
"""Range of an output that is all zeros, as untrained networks give it."""


class Different(DitError):
    """A graph does not compute what the model does: a bug of the exporter, exit 1."""


class Untraceable(DitError):
    """Torch has no ONNX operator for something in the model: a bug of the recipe, exit 1."""


def write_graph(graph: Graph, folder: Path, opset: int, check: bool) -> dict[str, Any]:
    """Write ``folder/NAME.onnx``; returns its facts for ``export.json``.

    Weights become byte ranges of the safetensors files in ``folder/<graph.folder>``.
    Raises Different when the graph differs from torch by more than ``TOLERANCE``.
    """
    import torch

    path = folder / f"{graph.name}.onnx"
    first = {name: torch.as_tensor(value) for name, value in graph.examples[0].items()}
    with graph.prepared() as module:
        _trace(module, first, graph, path, opset)
        attach_weights(path, module, sorted((folder / graph.folder).glob("*.safetensors")))
    inputs = {
        name: [graph.dynamic[name].get(i, size) for i, size in enumerate(value.shape)]
        for name, value in graph.examples[0].items()
    }
    difference = compare_with_torch(graph, path) if check else None
    return {"file": path.name, "inputs": inputs, "output": graph.output, "difference": difference}


def write_subgraphs(graph: Graph, folder: Path, opset: int, check: bool) -> list[dict[str, Any]]:
    """Write the transformer's graph in pieces as well; returns the facts of each.

    Raises Different when the pieces, one after the other, differ from torch as in ``write_graph``.
    """
    import torch

    chain, whole = graph.blocks(), folder / f"{subgraphs.WHOLE}.onnx"
    first = {name: torch.as_tensor(value) for name, value in graph.examples[0].items()}
    with graph.prepared() as module:
        names = subgraphs.names_of(chain, lambda: module(**first))
        with subgraphs.mark_blocks(module, chain) as marked:
            _trace(marked, first, graph, whole, opset, [graph.output, *names])
        attach_weights(whole, module, sorted((folder / graph.folder).glob("*.safetensors")))
    paths = subgraphs.cut_graph(whole, names, chain)
    difference = largest_difference(graph, paths[0].name, Subgraphs(open_session, folder)) if check else None
    return [{"file": path.name, "difference": difference} for path in paths]


def _trace(
    module: Any, inputs: dict[str, Any], graph: Graph, path: Path, opset: int, outputs: Sequence[str] = ()
) -> None:
    from torch.onnx.errors import OnnxExporterError

    made = outputs or graph.output
    try:
        trace(module, inputs, made, path, graph.dynamic, opset, weights=False)
    except OnnxExporterError as error:
        line = str(error).splitlines()[0][:200]
        raise Untraceable(f"{path.name}: {line}", "please report the model") from error


def write_int8(graph: Graph, folder: Path, check: bool) -> dict[str, Any]:
    """Write ``folder/NAME.int8.onnx`` from ``NAME.onnx``; returns its facts, without a limit."""
    from dit_tools.tasks.export.int8 import quantize

    path = folder / f"{graph.name}.int8.onnx"
    products = quantize(folder / f"{graph.name}.onnx", path)
    difference = compare_with_torch(graph, path, math.inf) if check else None
    return {"file": path.name, "products": products, "difference": difference}


def compare_with_torch(graph: Graph, path: Path, limit: float | None = None) -> float:
    """Largest difference to torch over the examples, relative to the output's range.

    Raises Different when it is not below ``limit``, which is ``TOLERANCE`` if not given.
    """
    session = open_session(path)
    return largest_difference(graph, path.name, lambda feeds: session.run(None, feeds)[0], limit)


def largest_difference(
    graph: Graph, name: str, run: Callable[[dict[str, Any]], Any], limit: float | None = None
) -> float:
    """The same for what ``run`` makes of an example's inputs; ``name`` is for the message."""
    import numpy as np

    worst, limit = 0.0, TOLERANCE if limit is None else limit
    for i, feeds in enumerate(graph.examples):
        expected = graph.expected(i)
        got = np.asarray(run(feeds)).reshape(expected.shape)
        error = float(np.abs(got - expected).max() / max(np.abs(expected).max(), TINY))
        if not error < limit:  # NaN counts as different
            raise Different(
                f"{name} differs from torch by {error:.1e} of its range",
                "please report the model and the versions of torch and diffusers",
            )
        worst = max(worst, error)
    return worst
