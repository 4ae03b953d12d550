"""A tiny random DiTPipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import encoders

LABELS = {0: "tench, Tinca tinca", 1: "goldfish, Carassius auratus", 207: "golden retriever"}


def pipeline(tmp: Any = None, scheduler: Any = None) -> Any:
    """A DiTPipeline with the classes of DiT-XL/2 and some hundred thousand weights, 32 px.

    ``tmp``: a folder to save it in as well. ``scheduler`` replaces DDIM.
    """
    import torch
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        norm_num_groups=4,
        sample_size=8,
        num_embeds_ada_norm=1000,
    ).eval()
    vae = encoders.autoencoder(4, scaling_factor=0.18215)
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    made = DiTPipeline(transformer, vae, scheduler, id2label=LABELS)
    encoders.finished(made, tmp)
    if tmp is not None:  # the released models have the labels there; saving drops them
        index = Path(tmp) / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": LABELS}))
    return made
