"""A tiny random Lumina2Pipeline."""

from __future__ import annotations

from typing import Any

from tests.support import text


def gemma2(vocabulary: int) -> Any:
    """A random Gemma2 text encoder of width 16 in evaluation mode."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    return Gemma2Model(config).eval()


def autoencoder(channels: int, seed: int = 0) -> Any:
    """A random AutoencoderKL, 8 pixels per latent, with scale and shift."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=channels,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def pipeline(tmp: Any = None) -> Any:
    """A Lumina2Pipeline with the classes of Lumina-Image 2.0 and some ten thousand weights.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    torch.manual_seed(0)
    tokenizer = text.gemma()
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=3,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(600, 64, 64),
        cap_feat_dim=16,
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    made = Lumina2Pipeline(transformer, scheduler, autoencoder(4), gemma2(len(tokenizer)), tokenizer)
    made.set_progress_bar_config(disable=True)
    if tmp is not None:
        made.save_pretrained(tmp)
    return made
