"""Put a trained codec together: its tables and its decoder network as an ONNX graph.

``python -m dit_tools.tasks.train.codec.export --tables FILE --run FOLDER --out FOLDER``
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import ModelError
from dit_tools.media.wavelet.tables import Tables
from dit_tools.nn.wavelet_decoder import SHUFFLE, WaveletDecoder

if TYPE_CHECKING:
    import torch

OPSET = 17


def to_onnx(net: WaveletDecoder) -> Any:
    """The network as an ONNX model of any batch, height and width.

    The graph is written out by hand, as it has ten kinds of nodes and must keep the names of the
    weights, by which PyTorch finds them again.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants = {
        "divisor": np.float32(64), "quarter": np.float32(4), "one": np.float32(1),
        "eight": np.float32(8),
        "two": np.log(np.float32(2)),
        "from_space": np.arange(3 * SHUFFLE**2).reshape(SHUFFLE**2, 3).T.ravel(),
    }  # fmt: skip

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(x: str, layer: str) -> str:
        return add("Conv", x, f"{layer}.weight", f"{layer}.bias", pads=[1, 1, 1, 1], kernel_shape=[3, 3])

    scale = add("Div", add("ReduceMean", "steps", axes=[1, 2, 3], keepdims=1), "eight")
    # SpaceToDepth orders channels by place first; PyTorch's pixel_unshuffle by channel first. The
    # first layer's and last layer's weights are stored in PyTorch's order, so channels are gathered.
    cells = add("Gather", add("SpaceToDepth", "image", blocksize=SHUFFLE), "from_space", axis=1)
    logs = add("Sub", add("Div", add("Div", add("Log", "steps"), "two"), "quarter"), "one")
    h = conv(add("Concat", add("Div", cells, "divisor"), logs, axis=1), "enter")
    h = add("Relu", h)
    for index in range(len(net.first)):
        inner = add("Relu", conv(h, f"first.{index}"))
        h = add("Add", h, conv(inner, f"second.{index}"))
    left = conv(add("Relu", h), "leave")
    change = add("Mul", add("DepthToSpace", left, blocksize=SHUFFLE, mode="CRD"), scale)
    nodes.append(helper.make_node("Add", ["image", change], ["restored"]))
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants | weights).items()]
    graph = helper.make_graph(
        nodes,
        "wavelet_decoder",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
            helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["batch", 2, "rows", "columns"]),
        ],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def averaged(run: Path) -> WaveletDecoder:
    """The averaged network of a training run. Raises ModelError without a checkpoint."""
    from dit_tools.tasks.train import checkpoint

    state = checkpoint.load_checkpoint(run / "state.pt")
    if not state:
        raise ModelError(f"{run}: no checkpoint", "train the decoder first")
    weights: dict[str, torch.Tensor] = state["average"]
    blocks = sum(name.startswith("first.") for name in weights) // 2
    net = WaveletDecoder(weights["enter.weight"].shape[0], blocks)
    net.load_state_dict(weights)
    return net


def export(tables: Path, run: Path, out: Path) -> None:
    """Write ``tables.safetensors`` and ``decoder.onnx``, each checked, to a folder."""
    import onnx

    Tables.load(tables)
    model = to_onnx(averaged(run))
    onnx.checker.check_model(model, full_check=True)
    out.mkdir(parents=True, exist_ok=True)
    if tables.resolve() != (out / "tables.safetensors").resolve():
        shutil.copyfile(tables, out / "tables.safetensors")
    (out / "decoder.onnx").write_bytes(model.SerializeToString())


def main() -> None:
    """Entry point of ``python -m``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    export(options.tables, options.run, options.out)


if __name__ == "__main__":
    main()
