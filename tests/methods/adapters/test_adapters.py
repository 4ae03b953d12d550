"""Adapters on a tiny transformer: an untrained one changes nothing, a trained one only itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.blocks import Block
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import names
from dit_tools.models.blocks import blocks
from dit_tools.models.families.pixart import PixArt
from dit_tools.nn import adapters
from tests.support import pixart

EVERY = ("lora:rank=2", "difffit", "diffscaler")


def network() -> Any:
    made = pixart.pipeline().transformer
    torch.manual_seed(1)
    for p in made.parameters():  # what is zero at the start would hide mistakes
        p.data += 0.05 * torch.randn_like(p)
    return made.eval()


def blocks_of(made: Any) -> list[Block]:
    return blocks(made, PixArt.stacks, PixArt.blocks)


def output(made: Any) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 8, 8, generator=noise), torch.randn(2, 5, 16, generator=noise)
    extra = {"resolution": None, "aspect_ratio": None}
    return made(x, text, torch.tensor([10.0, 500.0]), added_cond_kwargs=extra, return_dict=False)[0]


def trained(made: Any, text: str, steps: int = 3) -> adapters.Attached:
    attached = spec.parse("adapters", text).attach(made, blocks_of(made), 0)
    optimizer = torch.optim.AdamW(attached.parameters(), 0.05)
    for _ in range(steps):
        output(made).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return attached


def test_every_adapter_is_tested_here() -> None:
    assert {text.partition(":")[0] for text in EVERY} == set(names("adapters"))


@pytest.mark.parametrize("text", [*EVERY, "lora:layers=attention", "diffscaler:width=0", "difffit:scales=false"])
def test_untrained_it_equals_the_base_bit_for_bit_and_has_the_only_gradients(text: str) -> None:
    made = network()
    before, own = output(made), {k: v.clone() for k, v in made.state_dict().items()}
    attached = spec.parse("adapters", text).attach(made, blocks_of(made), 0)
    after = output(made)
    assert torch.equal(after, before)
    after.square().mean().backward()
    mine = {id(p) for p in attached.parameters()}
    assert mine and all(p.requires_grad for p in attached.parameters())
    assert all(p.grad is None or id(p) in mine for p in made.parameters())
    assert any(p.grad is not None and p.grad.any() for p in attached.parameters())
    for name, tensor in own.items():
        kept = made.state_dict()
        found = kept[name] if name in kept else kept[_behind_peft(name)]
        assert torch.equal(found, tensor), name


def _behind_peft(name: str) -> str:
    layer, _, part = name.rpartition(".")
    return f"{layer}.base_layer.{part}"


@pytest.mark.parametrize("text", ["difffit", "diffscaler", "difffit:scales=false"])
def test_what_is_saved_and_put_on_the_base_draws_the_same(text: str) -> None:
    made, base = network(), network()
    attached = trained(made, text)
    wanted = output(made)
    assert not torch.allclose(wanted, output(base), atol=1e-3)
    half, none = copy.deepcopy(base), copy.deepcopy(base)
    assert adapters.put(base, attached.tensors(), 1.0) > 0
    torch.testing.assert_close(output(base), wanted, atol=1e-4, rtol=1e-4)
    adapters.put(none, attached.tensors(), 0.0)
    assert torch.equal(output(none), output(network()))
    adapters.put(half, attached.tensors(), 0.5)
    assert not torch.allclose(output(half), wanted, atol=1e-4)


@pytest.mark.parametrize("text", EVERY)
def test_the_base_keeps_its_weights_and_tensors_are_few(text: str) -> None:
    made = network()
    whole = sum(p.numel() for p in made.parameters())
    matrices = {n: p.detach().clone() for n, p in made.named_parameters() if p.ndim == 2 and "table" not in n}
    attached = trained(made, text)
    kept = dict(made.named_parameters())
    for name, tensor in matrices.items():
        found = kept[name] if name in kept else kept[_behind_peft(name)]
        assert torch.equal(found, tensor), name
    assert sum(t.numel() for t in attached.tensors().values()) < 0.45 * whole


def test_lora_finds_a_difference_of_its_rank_and_no_larger_one() -> None:
    """A target of rank 4 is met with rank 4 and missed with rank 2."""
    torch.manual_seed(0)
    difference = torch.randn(24, 4) @ torch.randn(4, 24) / 10
    errors = {}
    for rank in (2, 4):
        made = network()
        layer = made.transformer_blocks[0].attn1.to_q
        attached = spec.parse("adapters", f"lora:rank={rank}").attach(made, blocks_of(made), 0)
        layer = made.transformer_blocks[0].attn1.to_q
        x = torch.eye(24)
        wanted = (layer(x) + x @ difference.T).detach()
        optimizer = torch.optim.Adam(attached.parameters(), 0.03)
        for _ in range(400):
            optimizer.zero_grad()
            error = (layer(x) - wanted).square().sum()
            error.backward()
            optimizer.step()
        errors[rank] = (error.sqrt() / difference.norm()).item()
    assert errors[4] < 0.05 < 0.2 < errors[2]


def test_alpha_is_folded_into_what_is_saved() -> None:
    attached = trained(network(), "lora:rank=2,alpha=6")
    saved = attached.tensors()
    name = "transformer.transformer_blocks.0.attn1.to_q.lora_B.weight"
    raw = next(
        p
        for n, p in attached.network.named_parameters()  # type: ignore[attr-defined]
        if n.endswith("blocks.0.attn1.to_q.lora_B.default.weight")
    )
    torch.testing.assert_close(saved[name], 3 * raw.detach())


def test_what_does_not_fit_is_named() -> None:
    saved = trained(network(), "difffit").tensors()
    name = next(k for k in saved if k.startswith("gamma."))
    with pytest.raises(ValueError, match="does not fit"):
        adapters.put(network(), saved | {name: torch.ones(3)}, 1.0)
    saved = trained(network(), "diffscaler").tensors()
    with pytest.raises(ValueError, match="strange.0 is no linear layer"):
        adapters.put(network(), {"strange.0.scale": torch.ones(3)}, 1.0)
    layer = next(iter(saved)).rpartition(".")[0]
    with pytest.raises(ValueError, match="does not fit"):
        adapters.put(network(), {f"{layer}.scale": torch.ones(3)}, 1.0)


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no linear layers in blocks"):
        spec.parse("adapters", "lora").attach(torch.nn.Linear(2, 2), [], 0)
