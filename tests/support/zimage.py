"""A tiny random ZImagePipeline."""

from __future__ import annotations

from typing import Any

from tests.support import text
from tests.support.lumina2 import autoencoder


def qwen3(vocabulary: int) -> Any:
    """A random Qwen3 text encoder of width 16 in evaluation mode."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    return Qwen3Model(config).eval()


def pipeline(tmp: Any = None) -> Any:
    """A ZImagePipeline with the classes of Z-Image and some hundred thousand weights.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    torch.manual_seed(0)
    tokenizer = text.qwen()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[600, 64, 64],
    ).eval()
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)  # zeros until trained
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    made = ZImagePipeline(scheduler, autoencoder(4), qwen3(len(tokenizer)), tokenizer, transformer)
    made.set_progress_bar_config(disable=True)
    if tmp is not None:
        made.save_pretrained(tmp)
    return made
