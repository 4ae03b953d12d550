"""Every family: exported, then sampled on both backends from the same start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dit_tools.models.backends.onnx_split import PIECES
from dit_tools.models.loading.load import load
from tests.support.exports import FAMILIES, relative, sampled

Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", FAMILIES)
def test_both_backends_make_the_same_picture(name: str, exports: Folder) -> None:
    folder = str(exports(name))
    onnx, torch = (load(folder, backend=backend) for backend in ("onnx", "torch"))
    assert (onnx.backend, torch.backend) == ("onnx", "torch")
    latents, pixels = sampled(onnx)
    expected, image = sampled(torch)
    assert relative(latents, expected) < 1e-3
    assert np.abs(pixels - image).max() < 1e-3
    assert image.std() > 0.01, "the tiny model draws nothing, so the test proves nothing"


@pytest.mark.parametrize("name", FAMILIES)
def test_graphs_share_the_weights_and_say_what_is_free(name: str, exports: Folder) -> None:
    folder = exports(name)
    facts = json.loads((folder / "export.json").read_text())
    pieces = {f"transformer.{name}" for name in PIECES}
    assert set(facts["graphs"]) == {"transformer", "vae_decoder", "vae_encoder", *pieces}
    assert all(graph["difference"] < 1e-3 for graph in facts["graphs"].values())
    inputs = facts["graphs"]["transformer"]["inputs"]
    free = {label for shape in inputs.values() for label in shape if isinstance(label, str)}
    assert "batch" in free and (facts["size"] is not None) == (name == "dit")
    assert name == "dit" or ({"height", "width"} <= free or "tokens" in free) and "text" in free
    proto = onnx.load(folder / "transformer.onnx", load_external_data=False)
    shared = [i for i in proto.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL]
    places = {entry.value for i in shared for entry in i.external_data if entry.key == "location"}
    assert places == {"transformer/diffusion_pytorch_model.safetensors"}
    weights = sum(np.prod(i.dims) for i in shared)
    assert weights > 10 * sum(np.prod(i.dims) for i in proto.graph.initializer if i not in shared)


def test_the_graphs_of_pixart_need_no_torch(models: Folder, tmp_path: Path) -> None:
    """With its text encoder exported, a PixArt is sampled without importing torch."""
    import os
    import subprocess
    import sys

    from tests.support.exports import exported

    folder = exported(models("pixart"), tmp_path / "out", parts=("transformer", "text_encoder", "vae"))
    code = (
        "import sys, numpy as np\n"
        "from dit_tools.models.loading.load import load\n"
        "from tests.support.exports import sampled\n"
        "latents, _ = sampled(load(sys.argv[1], backend='onnx'))\n"
        "np.save(sys.argv[2], latents)\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "latents.npy")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected, _ = sampled(load(str(folder), backend="torch"))
    assert relative(np.load(tmp_path / "latents.npy"), expected) < 1e-3
