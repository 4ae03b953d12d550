"""A family that is one file: caches, attention, tokens, editing, adapters, LoRA and export work on it.

The contract tests run over it as well, for ``tests/support`` has a builder of its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dit_tools.core import spec
from dit_tools.core.registry import names
from dit_tools.models import families
from dit_tools.models.backends.onnx_network import OnnxNetwork
from dit_tools.models.loading import lora
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.models.onnx_session import open_session
from dit_tools.tasks.export import graphs, write
from tests.support import chequer, scenes, small


@pytest.fixture(scope="module")
def model() -> Any:
    return model_from_pipeline(chequer.pipeline(), name="chequer", revision="0", device="cpu", dtype="float32")


def final(model: Any, **fields: Any) -> tuple[Any, Any]:
    states = torch.randn(2, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    conditions = {name: {"encoder_hidden_states": x} for name, x in zip(("cond", "uncond"), states, strict=True)}
    return small.final(model, conditions, small.plan(steps=8, guidance=small.Both(), **fields))


def test_it_is_found_by_its_file_alone() -> None:
    chequer.install()
    family = families.family_class("ChequerPipeline")
    assert family is not None and family.__module__ == "dit_tools.models.families.chequer"
    assert family in families.families().values()
    found = families.detect(chequer.pipeline().transformer.state_dict())
    assert found is family
    library = Path(families.__file__).parents[2]
    assert not [path for path in library.rglob("*.py") if "chequer" in path.read_text(encoding="utf-8").lower()]


@pytest.mark.parametrize(
    ("field", "text", "counted"),
    [
        ("cache", "first-block:threshold=10", "blocks skipped"),
        ("cache", "taylorseer:interval=3,level=module", "modules skipped"),
        ("cache", "taylorseer:interval=3", "blocks skipped"),
        ("attention", "msw:windows=2", "attention pairs saved"),
        ("attention", "re-ttention:density=0.2,warmup=0.2", "attention pairs saved"),
        ("tokens", "ras:ratio=0.5,start=2,refresh=4", "tokens skipped"),
        ("tokens", "jit:first=0.5,second=0.75,until=0.4..0.7", "tokens skipped"),
    ],
)
def test_methods_that_look_into_blocks_work(model: Any, field: str, text: str, counted: str) -> None:
    plain, _ = final(model)
    made, run = final(model, **{field: text})
    assert run.count[counted] > 0
    assert made.isfinite().all() and not torch.equal(made, plain)


@pytest.mark.parametrize("method", ["prompt-to-prompt", "masactrl"])
def test_editing_by_attention_works(method: str) -> None:
    scene = scenes.scene_of("chequer", "a red apple", "a blue apple")
    made = scenes.of(method).edit(scene)
    assert made.isfinite().all() and not torch.equal(made, torch.as_tensor(scene.x0))


@pytest.mark.parametrize("adapter", names("adapters"))
def test_adapters_attach_and_change_nothing_at_first(adapter: str) -> None:
    model = model_from_pipeline(chequer.pipeline(), name="", revision="", device="cpu", dtype="float32")
    network: Any = model.network
    inputs = model.family.inputs(torch.ones(1, 4, 8, 8), 0.5, {"encoder_hidden_states": torch.ones(1, 12, 16)})
    before = network(**inputs)
    attached = spec.parse("adapters", adapter).attach(network.module, network.blocks(), 0)
    assert attached.parameters()
    assert torch.equal(network(**inputs), before)


def test_a_lora_in_the_names_of_its_first_release_is_split(tmp_path: Path) -> None:
    pipe = chequer.pipeline()
    mix = pipe.transformer.floors[1].mix
    a, b, x = torch.randn(2, 24), torch.randn(72, 2), torch.randn(3, 24)
    save_file({"stairs.1.qkv.lora_A.weight": a, "stairs.1.qkv.lora_B.weight": b}, tmp_path / "x.safetensors")
    before = torch.cat([mix.to_q(x), mix.to_k(x), mix.to_v(x)], 1)
    done = lora.apply(pipe, [lora.Lora(tmp_path / "x.safetensors", 1.0)])
    assert (done[0]["layers"], done[0]["unmatched"]) == (3, 0)
    after = torch.cat([mix.to_q(x), mix.to_k(x), mix.to_v(x)], 1)
    torch.testing.assert_close(after - before, x @ a.T @ b.T, atol=1e-4, rtol=1e-4)


def test_its_graph_gives_what_torch_gives(model: Any, tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    transformer = model.network.module
    save_file(transformer.state_dict(), tmp_path / "transformer/x.safetensors")
    graph = graphs.transformer_graph(model.family, transformer)
    facts = write.write_graph(graph, tmp_path, 17, True)
    assert facts["difference"] < 1e-4
    x = np.random.default_rng(0).standard_normal((2, 4, 12, 8)).astype(np.float32)
    text = np.random.default_rng(1).standard_normal((2, 12, 16)).astype(np.float32)
    made = OnnxNetwork(open_session(tmp_path / "transformer.onnx", ["CPUExecutionProvider"]))(
        **model.family.inputs(x, 0.4, {"encoder_hidden_states": text})
    )
    inputs = model.family.inputs(torch.as_tensor(x), 0.4, {"encoder_hidden_states": torch.as_tensor(text)})
    np.testing.assert_allclose(made, model.network(**inputs).numpy(), atol=1e-5, rtol=1e-4)
