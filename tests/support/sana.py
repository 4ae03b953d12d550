"""A tiny random SanaPipeline."""

from __future__ import annotations

from typing import Any

from tests.support import text
from tests.support.lumina2 import gemma2


def pipeline(tmp: Any = None) -> Any:
    """A SanaPipeline with the classes of Sana 1.6B and some ten thousand weights.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    torch.manual_seed(0)
    tokenizer = text.gemma()
    channels = (4, 4, 4, 8, 8, 8)
    attention = ("ResBlock",) * 5 + ("EfficientViTBlock",)
    multiscales = ((), (), (), (), (), (3,))
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=attention,
        decoder_block_types=attention,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=multiscales,
        decoder_qkv_multiscales=multiscales,
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=16,
        patch_size=1,
        timestep_scale=0.5,
    )
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    made = SanaPipeline(tokenizer, gemma2(len(tokenizer)), vae, transformer, scheduler)
    made.set_progress_bar_config(disable=True)
    if tmp is not None:
        made.save_pretrained(tmp)
    return made
