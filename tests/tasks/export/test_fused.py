"""The two halves of a PixArt are the whole, in torch and as graphs; a run reads its text once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dit_tools.models.backends.onnx_network import OnnxNetwork
from dit_tools.tasks.export import fused
from dit_tools.tasks.export.trace import trace
from tests.support import small


@pytest.fixture(scope="module")
def transformer() -> Any:
    return small.pixart().network.module.eval()


def inputs(batch: int) -> tuple[dict[str, Any], Any]:
    """Latents, times and mask; and text states."""
    draw = torch.Generator().manual_seed(batch)
    mask = torch.ones(batch, 5, dtype=torch.int64)
    mask[1:, 2:] = 0
    given = {
        "hidden_states": torch.randn(batch, 4, 8, 8, generator=draw),
        "timestep": torch.rand(batch, generator=draw) * 1000,
        "encoder_attention_mask": mask,
    }
    return given, torch.randn(batch, 5, 12, generator=draw)


@torch.no_grad()
def test_the_halves_are_the_whole_and_leave_it_as_it_was(transformer: Any) -> None:
    context, denoiser = fused.parts(transformer)
    given, text = inputs(3)
    whole = transformer(**given, encoder_hidden_states=text, return_dict=False)[0]
    made = denoiser(context=context(text), **given)
    assert torch.allclose(made, whole, atol=1e-5) and not torch.allclose(
        denoiser(context=0 * context(text), **given), whole, atol=1e-3
    )
    again = transformer(**given, encoder_hidden_states=text, return_dict=False)[0]
    assert torch.equal(again, whole)


@pytest.fixture(scope="module")
def graphs(transformer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sessions of both graphs and the path of the denoiser's."""
    folder: Path = tmp_path_factory.mktemp("graphs")
    context, denoiser = fused.parts(transformer)
    given, text = inputs(2)
    free = {key: {0: "batch"} for key in (*given, "context", "encoder_hidden_states", "sample")}
    with torch.no_grad():
        keys = context(text)
    both = (
        ("context", context, {"encoder_hidden_states": text}, "context"),
        ("denoiser", denoiser, {"context": keys, **given}, "sample"),
    )
    for name, module, example, output in both:
        path = folder / f"{name}.onnx"
        axes = {key: free[key] for key in (*example, output)}
        trace(module, example, output, path, axes, fused.OPSET)
        fused.finish_graph(path)
    made = [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name, *_ in both]
    return *made, folder / "denoiser.onnx"


def test_graphs_have_one_node_an_attention_and_equal_torch(graphs: Any, transformer: Any) -> None:
    context, denoiser, path = graphs
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("MultiHeadAttention") == 2 * len(transformer.transformer_blocks)
    assert nodes.count("Gelu") == len(transformer.transformer_blocks) and "Softmax" not in nodes
    given, text = inputs(2)
    with torch.no_grad():
        whole = transformer(**given, encoder_hidden_states=text, return_dict=False)[0].numpy()
    network = OnnxNetwork(denoiser, context=context)
    made = network(encoder_hidden_states=text, **given)
    assert np.abs(made - whole).max() < 1e-5


class Counted:
    """A session that counts its runs."""

    def __init__(self, session: Any):
        self.session, self.runs = session, 0

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        return self.session.run(*arguments)

    def get_inputs(self) -> Any:
        return self.session.get_inputs()


def test_a_run_reads_its_text_once(graphs: Any) -> None:
    context, denoiser, _ = graphs
    counted = Counted(context)
    model = dataclasses.replace(small.pixart(), network=OnnxNetwork(denoiser, context=counted), to_array=lambda x: x)
    given = {
        name: {key: value.numpy() for key, value in condition.items()} for name, condition in small.conditions().items()
    }
    plan = small.plan(guidance=small.Both(), steps=4)
    (first, run), (second, _) = (small.final(model, given, plan) for _ in range(2))
    assert run.count["network calls"] == 4 and np.array_equal(first, second)
    assert counted.runs == 2  # one a run: both branches in one call, every step the same arrays
