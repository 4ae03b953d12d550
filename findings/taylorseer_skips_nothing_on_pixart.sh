#!/usr/bin/env bash
# diffusers 0.42.1, apply_taylorseer_cache: on a PixArtTransformer2DModel it hooks nothing and says nothing. Its default
# patterns match attention modules called "attn"; those of PixArt's blocks are "attn1" and "attn2", so that with
# cache_interval=5 all 20 of 20 calls compute their attention. On a FluxTransformer2DModel the same config computes 7.
# Seen: "PixArt 20 of 20, Flux 7 of 20". Whoever measures a speed-up on PixArt measures noise.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
"$folder/env/bin/python" - 2>/dev/null <<'PY'
import diffusers
import torch
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, TaylorSeerCacheConfig
from diffusers.hooks import apply_taylorseer_cache


def computed(model, attention, call):
    """How many of 20 calls compute the queries of one attention module."""
    count = 0
    forward = attention.to_q.forward

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return forward(*args, **kwargs)

    attention.to_q.forward = counted
    apply_taylorseer_cache(model, TaylorSeerCacheConfig(cache_interval=5))
    with torch.no_grad():
        for step in range(20):
            call(1 - step / 20)
    return count


torch.manual_seed(0)
pixart = PixArtTransformer2DModel(
    num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, cross_attention_dim=16,
    caption_channels=16, sample_size=8, patch_size=2, use_additional_conditions=False,
).eval()
latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 16)
sizes = {"resolution": None, "aspect_ratio": None}
one = computed(
    pixart, pixart.transformer_blocks[1].attn1,
    lambda t: pixart(latents, encoder_hidden_states=text, timestep=torch.tensor([1000 * t]), added_cond_kwargs=sizes),
)

flux = FluxTransformer2DModel(
    patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
).eval()
inputs = {
    "hidden_states": torch.randn(1, 16, 4), "encoder_hidden_states": text, "pooled_projections": torch.randn(1, 16),
    "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(4, 3),
}


def flux_call(t):
    with flux.cache_context("cond"):
        flux(timestep=torch.tensor([t]), **inputs)


other = computed(flux, flux.transformer_blocks[1].attn, flux_call)
print(f"diffusers {diffusers.__version__}, cache_interval=5: PixArt {one} of 20, Flux {other} of 20")
assert (one, other) == (20, 7), "the behaviour changed"
PY
