"""Dynamic int8 quantization of a transformer's graph by ONNX Runtime.

Weights of matrix products become int8 with a scale per output channel; activations are quantized as
they come, with one scale per tensor. That scale depends on everything in the call, so
``OnnxNetwork`` calls such a graph an image at a time.

Weights use seven of the eight bits: on x86 processors without VNNI the products of two bytes are
added in pairs that saturate at 16 bits, and the same graph would give another image there. On the
first built-in model the error grew by a fifth (0.46 instead of 0.38 % of the output's deviation).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dit_tools.jobs.atomic import part_name
from dit_tools.tasks.export.products import finish_graph
from dit_tools.tasks.export.shared_weights import EMBED_LIMIT
from dit_tools.tasks.export.simplify import fold_constants


def quantize(source: Path, target: Path) -> int:
    """Write the graph ``target`` in int8, with weights of its own; returns the matrix products.

    Products of two activations, as in attention, and everything else stay in float32. Only MatMul
    is quantized: time embeddings are Gemm, small and sensitive.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=part_name()) as folder:
        folded = Path(folder) / "folded.onnx"
        fold_constants(source, folded, external=True)
        large = sum(path.stat().st_size for path in Path(folder).iterdir()) > 4 * EMBED_LIMIT
        with quiet():
            quantize_dynamic(
                folded,
                target,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=large,
                # Types of ONNX Runtime's own operators are unknown to its quantizer.
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
            )
    made = onnx.load(target)
    finish_graph(made, target)
    return sum(node.op_type == "MatMulInteger" for node in made.graph.node)


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """ONNX Runtime's quantizer advises on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
