"""Our caches next to diffusers' hooks of the same name on a tiny Flux.

The mathematics is the same in these places and is compared there:

- TaylorSeer's series, when theirs is told to cache whole blocks (it caches attention by default)
  and to keep its factors in float32. Both divide by the last gap alone. Their schedule is another
  one (a full call at ``warmup + 1``, where the paper and we skip): the two meet at interval 2 with
  equal warm-up. Our last step is always full; theirs when ``disable_cache_after_step`` says so.
- First-block cache in all but ties: they skip at ``<=`` the threshold, we below it, so that 0 is
  the identity. They have no warm-up and no full last step, which is kept out of reach here.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel, TaylorSeerCacheConfig

from dit_tools.core import spec
from dit_tools.core.run import RunState
from dit_tools.models.blocks import blocks
from dit_tools.models.families.flux import Flux

CALLS = 14


@pytest.fixture(scope="module")
def flux():
    return make_flux()


def make_flux() -> FluxTransformer2DModel:
    """Two double and three single blocks of random weights."""
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=6,
        axes_dims_rope=(4, 2, 2),
    ).eval()


def inputs(call: int) -> dict[str, torch.Tensor]:
    """Slowly changing inputs, as along a sampling run."""
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 1, 16, 4, generator=generator)
    return {
        "hidden_states": start + (call / CALLS) ** 2 * end,
        "encoder_hidden_states": torch.randn(1, 5, 12, generator=generator),
        "pooled_projections": torch.randn(1, 6, generator=generator),
        "timestep": torch.tensor([1 - call / CALLS / 10]),
        "img_ids": torch.cartesian_prod(*map(torch.arange, (1, 4, 4))).float(),
        "txt_ids": torch.zeros(5, 3),
    }


@torch.no_grad()
def theirs(flux, config) -> list[torch.Tensor]:
    flux.enable_cache(config)
    try:
        with flux.cache_context("cond"):
            return [flux(**inputs(call), return_dict=False)[0] for call in range(CALLS)]
    finally:
        flux.disable_cache()


@torch.no_grad()
def ours(flux, cache: str, expected: int, calibration: object = None) -> tuple[list[torch.Tensor], RunState]:
    """Outputs of every call; the last step is at call ``expected - 1``."""
    run, made = RunState((1.0, 0.0, -1.0), expected, branches=("cond",)), []
    run.calibration = calibration
    with spec.parse("caching", cache).attach(blocks(flux, Flux.stacks, Flux.blocks), run):
        for call in range(CALLS):
            run.call, run.t = call, 0.5
            made.append(flux(**inputs(call), return_dict=False)[0])
    return made, run


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("warmup", [2, 3])
def test_taylorseer_equals_theirs_on_whole_blocks(flux, order, warmup):
    reference = theirs(
        flux,
        TaylorSeerCacheConfig(
            cache_interval=2,
            disable_cache_before_step=warmup,
            disable_cache_after_step=CALLS - 1,
            max_order=order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[r"(single_)?transformer_blocks\.\d+"],
        ),
    )
    cache = f"taylorseer:order={order},interval=2,warmup={warmup}"
    made, run = ours(flux, cache, CALLS)
    assert run.count["blocks skipped"] >= 5 * 5
    torch.testing.assert_close(torch.stack(made), torch.stack(reference), rtol=1e-5, atol=1e-5)
    skipped = CALLS - warmup  # a call that both of them forecast
    plain = flux(**inputs(skipped), return_dict=False)[0]
    assert not torch.allclose(made[skipped], plain, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3])
def test_first_block_equals_theirs(flux, threshold):
    reference = theirs(flux, FirstBlockCacheConfig(threshold=threshold))
    made, run = ours(flux, f"first-block:threshold={threshold}", 10**6)
    assert 0 < run.count["blocks skipped"] < (CALLS - 1) * 4
    torch.testing.assert_close(torch.stack(made), torch.stack(reference), rtol=1e-6, atol=1e-6)


def test_their_hooks_and_ours_leave_the_network_as_it_was(flux):
    with torch.no_grad():
        before = flux(**inputs(3), return_dict=False)[0]
        theirs(flux, FirstBlockCacheConfig(threshold=0.1))
        ours(flux, "taylorseer", CALLS)
        after = flux(**inputs(3), return_dict=False)[0]
    assert torch.equal(before, after)
