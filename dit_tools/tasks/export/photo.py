"""A trained network for photographs as a folder for ``dit superres -m`` or ``dit restore -m``.

The graphs are written operator by operator from the weights' names, without torch. They hold no
weights: each initializer is a byte range of ``model.safetensors`` in half precision and is cast to
float32 when the graph is opened. The int8 graphs have weights of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.models.photo import FACTS, VERSION
from dit_tools.tasks.export.shared_weights import tensors

WEIGHTS, OPSET, IR = "model.safetensors", 17, 8
FLOAT, HALF = 1, 10  # onnx.TensorProto element types
TILES = {"superres": 320, "restore": 768}


class Writer:
    """Collects the nodes of a graph; each method appends one operator and gives its output."""

    def __init__(self, weights: Path):
        self.weights, self.known = weights, tensors(weights)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operator with one output."""
        from onnx import helper

        self.count += 1
        output = f"x{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, name: str) -> str:
        """A tensor of the weights' file as float32."""
        from onnx import StringStringEntryProto, TensorProto

        kind, shape, offset, length = self.known[name]
        if kind != "F16":
            raise ModelError(f"{self.weights}: {name} is {kind}", "train it with 'dit train'")
        tensor = TensorProto(name=name, data_type=HALF, dims=shape, data_location=TensorProto.EXTERNAL)
        facts = {"location": self.weights.name, "offset": offset, "length": length}
        for key, value in facts.items():
            tensor.external_data.append(StringStringEntryProto(key=key, value=str(value)))
        self.initializers.append(tensor)
        return self.node("Cast", name, to=FLOAT)

    def constant(self, name: str, array: Any) -> str:
        """A small array inside the graph."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def convolution(self, x: str, name: str, size: int = 3, stride: int = 1) -> str:
        """``nn.Conv2d`` with padding that keeps the size, or of ``stride`` without any."""
        pads = [size // 2 if stride == 1 else 0] * 4
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("Conv", x, weight, bias, kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2)

    def blocks(self, x: str, name: str) -> str:
        """The residual blocks ``name.0``, ``name.1`` and so on."""
        for index in range(self._length(name)):
            inside = self.node("Relu", self.convolution(x, f"{name}.{index}.first"))
            x = self.node("Add", x, self.convolution(inside, f"{name}.{index}.second"))
        return x

    def _length(self, name: str) -> int:
        found = {key.removeprefix(f"{name}.").split(".")[0] for key in self.known if key.startswith(f"{name}.")}
        return len(found)

    def centred(self) -> str:
        """The input image minus one half."""
        import numpy as np

        return self.node("Sub", "image", self.constant("half", np.float32(0.5).reshape(1)))

    def model(self, output: str) -> Any:
        """The finished graph: ``image`` (1, 3, h, w) to ``residual``."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [output], ["residual"]))
        graph = helper.make_graph(
            self.nodes,
            "photo",
            [helper.make_tensor_value_info("image", FLOAT, ["batch", 3, "height", "width"])],
            [helper.make_tensor_value_info("residual", FLOAT, ["batch", 3, None, None])],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def upscaler(weights: Path, scale: int) -> Any:
    """The graph of ``nn.photo_networks.Upscaler`` for one scale."""
    w = Writer(weights)
    x = w.blocks(w.convolution(w.centred(), "start"), "blocks")
    x = w.convolution(x, f"heads.{scale}")
    return w.model(w.node("DepthToSpace", x, blocksize=scale, mode="CRD"))


def restorer(weights: Path) -> Any:
    """The graph of ``nn.photo_networks.Restorer``."""
    import numpy as np

    w = Writer(weights)
    # ONNX orders the channels (row, column, colour), torch (colour, row, column).
    order = np.array([(index % 4) * 3 + index // 4 for index in range(12)])
    x = w.node("SpaceToDepth", w.centred(), blocksize=2)
    x = w.node("Gather", x, w.constant("order", order), axis=1)
    x, kept = w.convolution(x, "start"), []
    levels = len([name for name in w.known if name.startswith("shrink.") and name.endswith("weight")])
    for level in range(levels):
        x = w.blocks(x, f"down.{level}")
        kept.append(x)
        x = w.convolution(x, f"shrink.{level}", size=2, stride=2)
    x = w.blocks(x, "bottom")
    for level in reversed(range(levels)):
        grown = w.node("DepthToSpace", w.convolution(x, f"grow.{level}", size=1), blocksize=2, mode="CRD")
        x = w.blocks(w.node("Add", kept[level], grown), f"up.{level}")
    x = w.convolution(x, "end")
    return w.model(w.node("DepthToSpace", x, blocksize=2, mode="CRD"))


def export(weights: Path, folder: Path, facts: dict[str, Any], calibration: list[Any] | None = None) -> Path:
    """Write graphs, weights and ``photo.json`` into ``folder``.

    Args:
        weights: what ``tasks.train.photo_networks`` made, half precision.
        folder: made where it is missing.
        facts: ``task``, ``scales`` (super-resolution), ``overlap``, ``multiple`` and whatever the
            card's reader should know.
        calibration: images (H, W, 3), float32 in [0, 1], for the ranges of int8; None: no int8.
    """
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / WEIGHTS
    if weights.resolve() != target.resolve():
        shutil.copyfile(weights, target)
    graphs: dict[str, dict[str, str]] = {}
    for scale, model in _graphs(target, facts):
        stem = f"x{scale}" if facts["task"] == "superres" else "restore"
        onnx.save(model, folder / f"{stem}.onnx")
        graphs[str(scale)] = {"float32": f"{stem}.onnx"}
        if calibration:
            quantize(folder / f"{stem}.onnx", folder / f"{stem}.int8.onnx", calibration)
            graphs[str(scale)]["int8"] = f"{stem}.int8.onnx"
    kept = {key: value for key, value in facts.items() if key != "scales"}
    made = {
        "version": VERSION, **kept, "tile": TILES[facts["task"]], "graphs": graphs,
        "revision": _hash(target)[:12],
    }  # fmt: skip
    files = [WEIGHTS, *(name for entry in graphs.values() for name in entry.values())]
    made["files"] = {name: {"sha256": _hash(folder / name)} for name in sorted(files)}
    (folder / FACTS).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return folder


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _graphs(weights: Path, facts: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    if facts["task"] == "restore":
        yield 1, restorer(weights)
        return
    for scale in facts["scales"]:
        yield scale, upscaler(weights, scale)


def quantize(source: Path, target: Path, images: list[Any]) -> None:
    """An int8 graph: weights with a scale per channel, activations with a fixed range (QDQ).

    The first convolution stays float32: its input is the image, whose 8 bits it would round once
    more.
    """
    import onnx
    from onnxruntime import quantization as q

    class Images(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image.transpose(2, 0, 1)[None]}

    plain = target.with_suffix(".tmp.onnx")
    logging.disable(logging.WARNING)  # it asks for a preparation that these graphs do not need
    try:
        onnx.save(_folded(source), plain)
        first = next(node.name for node in onnx.load(plain).graph.node if node.op_type == "Conv")
        q.quantize_static(
            plain, target, Images(), quant_format=q.QuantFormat.QDQ, per_channel=True,
            activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Relu", "Add"], nodes_to_exclude=[first],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
        plain.unlink(missing_ok=True)


def _folded(source: Path) -> Any:
    """The graph with float32 weights inside and no Cast, and a name for every node."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)  # with the weights of the file next to it
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    casts = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Cast"}
    nodes = [node for node in model.graph.node if node.op_type != "Cast"]
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    names = {source: output for output, source in casts.items()}
    for name, array in arrays.items():
        kept = array.astype(np.float32) if name in names else array
        model.graph.initializer.append(numpy_helper.from_array(kept, names.get(name, name)))
    return model
