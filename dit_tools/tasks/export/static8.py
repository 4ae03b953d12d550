"""Static int8 as QuantizeLinear and DequantizeLinear nodes: scales of activations are constants.

Unlike ``int8``, whose scales come with each call, an image cannot depend on its batch, and every
execution provider can run it. The price is calibration: ranges must hold for all times of sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dit_tools.tasks.export.int8 import quiet
from dit_tools.tasks.export.products import finish_graph, plain_graph, products, save_graph


def quantize(
    source: Path, target: Path, feeds: Iterable[Mapping[str, Any]], skip: Callable[[str], bool], symmetric: bool
) -> int:
    """Write the graph ``target``; returns how many products it quantizes.

    ``feeds``: inputs of the graph from sampling. ``skip``: names of nodes, dots for slashes, that
    stay as they are. ``symmetric``: int8 activations around zero and eight bits of weights, as GPUs
    want them; otherwise uint8 and seven bits (see ``int8`` for why).
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with TemporaryDirectory(dir=target.parent, prefix=".dit-part-") as folder:
        model = plain_graph(source, Path(folder))
        chosen = [p.node.name for p in products(model) if not skip(p.node.name.replace("/", "."))]
        plain = Path(folder) / "plain.onnx"
        save_graph(model, plain)
        del model
        with quiet():
            quantize_static(
                plain,
                target,
                _reader(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=not symmetric,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
            )
    made = onnx.load(target)
    finish_graph(made, target)
    return len(chosen)


def _reader(feeds: Iterable[Mapping[str, Any]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(feeds)

        def get_next(self) -> Any:
            return next(self.rest, None)

    return Reader()
