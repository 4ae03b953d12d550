"""A tiny random FluxPipeline."""

from __future__ import annotations

from typing import Any

from tests.support import encoders


def pipeline(tmp: Any = None, distilled: bool = True) -> Any:
    """A FluxPipeline with the classes of Flux.1 and some ten thousand weights.

    ``tmp``: a folder to save it in as well. ``distilled``: as Flux.1-dev, with embedded guidance
    and a shift by token count; otherwise as Flux.1-schnell, with neither.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    clip, t5 = encoders.clip_tokenizer(), encoders.t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=12,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if distilled else {"shift": 1.0}
    made = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        vae=encoders.autoencoder(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=encoders.clip_encoder(clip, 12),
        tokenizer=clip,
        text_encoder_2=encoders.t5_encoder(t5, 24),
        tokenizer_2=t5,
        transformer=transformer,
    )
    return encoders.finished(made, tmp)
