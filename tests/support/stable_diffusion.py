"""A tiny random StableDiffusionPipeline: a U-Net, for which dit has no adapter."""

from __future__ import annotations

from typing import Any

from tests.support import encoders


def pipeline(tmp: Any = None) -> Any:
    """A StableDiffusionPipeline with the classes of SD 1.5 and some ten thousand weights, 32 px.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    clip = encoders.clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()
    made = StableDiffusionPipeline(
        vae=encoders.autoencoder(4, scaling_factor=0.18215),
        text_encoder=encoders.clip_encoder(clip, 12),
        tokenizer=clip,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return encoders.finished(made, tmp)
