"""The networks begin as their base, and see as far as their overlap says."""

from __future__ import annotations

import pytest
import torch

from dit_tools.nn.photo_networks import Restorer, Upscaler
from dit_tools.tasks.train.photo_recipe import Archive, Network, PhotoRecipe, Training
from dit_tools.tasks.train.photo_run import facts


def test_untrained_networks_add_nothing() -> None:
    image = torch.rand(1, 3, 16, 24)
    assert not Restorer((8, 8), (1, 1))(image).any()
    upscaler = Upscaler(8, 1, (2, 3))
    assert [tuple(upscaler(image, s).shape) for s in (2, 3)] == [(1, 3, 32, 48), (1, 3, 48, 72)]
    assert not upscaler(image, 3).any()


def reach(network, side: int, *arguments: int) -> int:
    """How far from the middle pixel the result changes when that pixel does, in input pixels."""
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.02)  # positive: nothing cancels, every ReLU passes
    image = torch.ones(1, 3, side, side)
    image[..., side // 2, side // 2] += 1
    with torch.no_grad():
        changed = (network(image.double(), *arguments) - network(torch.ones_like(image).double(), *arguments)) != 0
    scale = arguments[0] if arguments else 1
    rows = changed.any(dim=3).any(dim=1)[0].nonzero().ravel() // scale
    return int(max(side // 2 - rows.min(), rows.max() - side // 2))


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_overlap_of_super_resolution_covers_what_it_sees(blocks) -> None:
    recipe = PhotoRecipe("a", "superres", 0, (Archive("a"),), Network(blocks=(blocks,)), Training())
    seen = reach(Upscaler(4, blocks, (2,)).double(), 64, 2)
    assert seen == 2 * blocks + 2 <= facts(recipe)["overlap"]


@pytest.mark.parametrize(("widths", "blocks"), [((4, 4), (1, 1)), ((4, 4, 4), (1, 2, 1))])
def test_the_overlap_of_restoration_covers_what_it_sees(widths, blocks) -> None:
    recipe = PhotoRecipe("a", "restore", 0, (Archive("a"),), Network(blocks=blocks, widths=widths), Training())
    made = facts(recipe)
    seen = reach(Restorer(widths, blocks).double(), 32 * made["multiple"])
    assert made["overlap"] - 2 * made["multiple"] < seen <= made["overlap"]
    assert made["overlap"] % made["multiple"] == 0 and made["multiple"] == Restorer(widths, blocks).multiple
