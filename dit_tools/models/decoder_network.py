"""The network of an image codec, run by ONNX Runtime or by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Run = Callable[["NDArray", "NDArray"], "NDArray"]
"""RGB (B, 3, H, W) about 0 and steps (B, 2, H / 4, W / 4), float32, to corrected RGB."""


def open_network(path: Path, backend: str = "onnx", device: str = "cpu", threads: int = 0) -> Run:
    """Open the decoder network of a codec.

    Args:
        path: Its ONNX file; PyTorch takes the weights from there too.
        backend: ``onnx`` or ``torch``.
        device: ``cpu`` or ``cuda``.
        threads: Threads of the computation; 0 for as many as there are cores.

    Raises:
        ModelError: The file is missing or damaged.
        UnsupportedError: No such device here.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no decoder network", "install dit again")
    if backend == "torch":
        return _torch(path, device, threads)
    return _onnx(path, device, threads)


def _onnx(path: Path, device: str, threads: int) -> Run:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UnsupportedError("ONNX Runtime has no CUDA here", "use --device cpu")
        providers.insert(0, "CUDAExecutionProvider")
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session: Any = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # the runtime raises several classes of its own
        raise ModelError(f"{path}: no usable network ({error})", "install dit again") from error

    def run(image: NDArray, steps: NDArray) -> NDArray:
        return session.run(None, {"image": image, "steps": steps})[0]

    return run


def _torch(path: Path, device: str, threads: int) -> Run:
    import torch

    from dit_tools.nn.wavelet_decoder import WaveletDecoder

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnsupportedError("PyTorch finds no CUDA here", "use --device cpu")
    if threads:
        torch.set_num_threads(threads)
    weights = initializers(path)
    width = weights["enter.weight"].shape[0]
    net = WaveletDecoder(width, sum(name.startswith("first.") for name in weights) // 2)
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(image: NDArray, steps: NDArray) -> NDArray:
        given = (torch.from_numpy(part.copy()).to(device) for part in (image, steps))
        return net(*given).float().cpu().numpy()

    return run


def initializers(path: Path) -> dict[str, NDArray]:
    """The weights in an ONNX file, by the names that the PyTorch module has for them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    return {w.name: numpy_helper.to_array(w) for w in graph.initializer if "." in w.name}
