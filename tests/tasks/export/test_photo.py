"""Graphs of the networks for photographs: the numbers of torch, one copy of the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.models import photo
from dit_tools.nn.photo_networks import Restorer, Upscaler
from tests.support import photographs

SMALL = {"superres": lambda: Upscaler(8, 2, (2, 3, 4)), "restore": lambda: Restorer((8, 12, 16), (1, 1, 1))}


@pytest.fixture(scope="module", params=["superres", "restore"])
def folder(request, tmp_path_factory):
    return photographs.network_folder(tmp_path_factory.mktemp(request.param) / request.param, request.param)


def test_the_graphs_give_what_torch_gives(folder) -> None:
    from safetensors.torch import load_file

    network = SMALL[folder.name]()
    network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    model = photo.load(str(folder), folder.name, "cpu", None)
    image = photographs.scene(40, 56)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    for scale in model.scales:
        with torch.no_grad():
            wanted = network(x) if folder.name == "restore" else network(x, scale)
        made = model.residual(image, scale)
        assert made.shape == (40 * scale, 56 * scale, 3) and made.std() > 0.01
        assert np.allclose(made, wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_int8_is_near(folder) -> None:
    image = photographs.scene(40, 56, 5)
    plain, rounded = (photo.load(str(folder), folder.name, "cpu", d) for d in ("float32", "int8"))
    for scale in plain.scales:
        a, b = plain.residual(image, scale), rounded.residual(image, scale)
        assert 0 < np.square(a - b).mean() < 1e-3 * np.square(a).mean()


def test_the_graphs_hold_no_weights_of_their_own(folder) -> None:
    weights = (folder / "model.safetensors").stat().st_size
    for path in folder.glob("*.onnx"):
        assert "int8" in path.name or path.stat().st_size < weights / 2


def test_a_model_of_the_other_task_and_odd_options_are_refused(folder, tmp_path) -> None:
    other = "restore" if folder.name == "superres" else "superres"
    with pytest.raises(ModelError, match="made for 'dit"):
        photo.load(str(folder), other, None, None)
    with pytest.raises(UsageError, match="--dtype float16"):
        photo.load(str(folder), folder.name, None, "float16")
    with pytest.raises(UsageError, match="--device tpu"):
        photo.load(str(folder), folder.name, "tpu", None)
    with pytest.raises(ModelError, match="no such model"):
        photo.load("nowhere", folder.name, None, None)
    with pytest.raises(ModelError, match=r"no photo.json"):
        photo.load(str(tmp_path), folder.name, None, None)


@pytest.mark.parametrize(
    "change",
    [
        ('"version": 1', '"version": 2'),
        ('"overlap": ', '"overlap": -'),
        ('"tile": ', '"tile": 9999'),
        ('"graphs"', '"graph"'),
        (".onnx", "/../x.onnx"),
    ],
)
def test_damaged_facts_are_told(folder, tmp_path, change) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    text = (copy / "photo.json").read_text()
    (copy / "photo.json").write_text(text.replace(*change))
    with pytest.raises((ModelError, UnsupportedError)):
        photo.load(str(copy), folder.name, None, None)


def test_a_damaged_graph_is_told(folder, tmp_path) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    for graph in copy.glob("*.onnx"):
        graph.write_bytes(b"not a graph")
    model = photo.load(str(copy), folder.name, None, None)
    with pytest.raises(ModelError, match="cannot be opened"):
        model.residual(photographs.scene(8, 8), model.scales[0])
