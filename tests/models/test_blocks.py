"""``models.blocks`` against a forward of every family's real transformer."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.size import Size
from dit_tools.models.blocks import blocks
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import model_from_pipeline

FAMILIES = {  # name: stacks and sides of the image
    "dit": ["transformer_blocks"],
    "pixart": ["transformer_blocks"],
    "sd3": ["transformer_blocks"],
    "flux": ["transformer_blocks", "single_transformer_blocks"],
    "sana": ["transformer_blocks"],
    "lumina2": ["layers"],
    "qwenimage": ["transformer_blocks"],
    "zimage": ["layers"],
}
REFINERS = ("noise_refiner", "context_refiner")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def called(request: pytest.FixtureRequest) -> tuple[str, Any, dict[str, Any], int]:
    """Family name, network, inputs of one call and the number of image tokens."""
    support = importlib.import_module(f"tests.support.{request.param}")
    model = model_from_pipeline(support.pipeline(), name="", revision="", device="cpu", dtype="float32")
    family = model.family
    height, width = 2 * 2 * family.vae_scale, 3 * 2 * family.vae_scale
    if request.param == "dit":  # its positions are those of one square size
        height = width = family.default_size
    texts = ("1",) if request.param == "dit" else ("a red apple",)
    condition = model.encode(ConditionRequest(texts, ("",), Size(height, width), ("cond",), 3.5))["cond"]
    shape = (1, *family.latent_shape(Size(height, width)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return request.param, model.network, family.inputs(x, 0.7, condition), family.patch


def _hooked(network: Any, inputs: dict[str, Any], hook: Any) -> Any:
    handles = [
        block.module.register_forward_hook(lambda m, a, out, block=block: hook(block, out))
        for block in network.blocks()
    ]
    try:
        return network(**inputs)
    finally:
        for handle in handles:
            handle.remove()


def test_stacks(called: Any) -> None:
    name, network, _, _ = called
    listed = network.blocks()
    stacks = list(dict.fromkeys(block.name.partition(".")[0] for block in listed))
    assert stacks == FAMILIES[name]
    assert [block.index for block in listed] == list(range(len(listed)))
    assert len(listed) == sum(len(getattr(network.module, stack)) for stack in stacks)
    for stack in REFINERS:
        refiners = list(getattr(network.module, stack, ()))
        assert not any(block.module is refiner for block in listed for refiner in refiners)


def test_each_block_runs_once_in_order(called: Any) -> None:
    _, network, inputs, _ = called
    ran: list[int] = []
    _hooked(network, inputs, lambda block, out: ran.append(block.index))
    assert len(ran) >= 2
    assert ran == list(range(len(ran)))
    assert len(ran) == len(network.blocks())


def test_own_output_changes_nothing(called: Any) -> None:
    _, network, inputs, _ = called
    plain = network(**inputs)

    def same(block: Any, out: Any) -> Any:
        if block.output is None:
            return out.clone()
        parts = list(out)
        parts[block.output] = parts[block.output].clone()
        return tuple(parts)

    assert torch.equal(_hooked(network, inputs, same), plain)


def test_output_is_the_image_stream(called: Any) -> None:
    """The chosen element of the last block alone decides what comes out."""
    _, network, inputs, _ = called
    plain = network(**inputs)
    last = network.blocks()[-1].index

    def other_parts_spoilt(block: Any, out: Any) -> Any:
        if block.index != last or block.output is None:
            return out
        return tuple(
            part if i == block.output or part is None else torch.full_like(part, 99.0) for i, part in enumerate(out)
        )

    def spoilt(block: Any, out: Any) -> Any:
        if block.index != last:
            return out
        if block.output is None:
            return out.flip(1)
        parts = list(out)
        parts[block.output] = parts[block.output].flip(1)
        return tuple(parts)

    assert torch.equal(_hooked(network, inputs, other_parts_spoilt), plain)
    assert not torch.allclose(_hooked(network, inputs, spoilt), plain, atol=1e-4)


def test_shape_of_the_image_stream(called: Any) -> None:
    """(B, N, D) with the image's tokens, and the text's where both share a stream."""
    name, network, inputs, patch = called
    latents = inputs["x"][0] if name == "zimage" else inputs["hidden_states"]
    image = (latents.shape[-2] // patch) * (latents.shape[-1] // patch)
    if name in ("flux", "qwenimage"):  # packed already
        image = latents.shape[1]
    seen = []
    _hooked(network, inputs, lambda block, out: seen.append(out if block.output is None else out[block.output]))
    for hidden in seen:
        assert hidden.ndim == 3
        if name in ("lumina2", "zimage"):
            assert hidden.shape[1] > image
        else:
            assert hidden.shape[1] == image


def test_unknown_blocks_are_refused() -> None:
    class Strange(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(1, 1)])

    with pytest.raises(UnsupportedError, match="Linear"):
        blocks(Strange(), ("blocks",), {})


def test_no_stacks_no_blocks() -> None:
    assert blocks(torch.nn.Linear(1, 1), ("blocks",), {}) == []
