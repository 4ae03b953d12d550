"""A tiny random StableDiffusion3Pipeline."""

from __future__ import annotations

from typing import Any

from tests.support import encoders


def pipeline(tmp: Any = None, scheduler: Any = None, t5: bool = True) -> Any:
    """A StableDiffusion3Pipeline with the classes of SD 3 and some ten thousand weights.

    ``tmp``: a folder to save it in as well. ``scheduler`` replaces FlowMatchEuler with shift 3;
    without ``t5`` the third text encoder is missing, as in many distributions.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    clip, t5_tokens = encoders.clip_tokenizer(), encoders.t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=20,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    ).eval()
    made = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=encoders.autoencoder(4, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=encoders.clip_encoder(clip, 8, projection=8),
        tokenizer=clip,
        text_encoder_2=encoders.clip_encoder(clip, 12, projection=12),
        tokenizer_2=clip,
        text_encoder_3=encoders.t5_encoder(t5_tokens, 24) if t5 else None,
        tokenizer_3=t5_tokens if t5 else None,
    )
    return encoders.finished(made, tmp)
