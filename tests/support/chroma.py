"""A tiny random ChromaPipeline: a flow-matching transformer for which dit has no adapter."""

from __future__ import annotations

from typing import Any

from tests.support import encoders


def pipeline(tmp: Any = None) -> Any:
    """A ChromaPipeline with the classes of Chroma1 and some ten thousand weights, 32 px.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    t5 = encoders.t5_tokenizer()
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    ).eval()
    made = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=encoders.autoencoder(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=encoders.t5_encoder(t5, 24),
        tokenizer=t5,
        transformer=transformer,
    )
    return encoders.finished(made, tmp)
