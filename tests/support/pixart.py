"""Tiny random PixArtAlphaPipeline and PixArtSigmaPipeline."""

from __future__ import annotations

from typing import Any

from tests.support import encoders


def pipeline(tmp: Any = None, scheduler: Any = None, **options: Any) -> Any:
    """A PixArtSigmaPipeline with the classes of PixArt-Sigma and some ten thousand weights.

    ``tmp``: a folder to save it in as well. ``scheduler`` replaces DPM-Solver++, ``options`` go to
    the transformer.
    """
    from diffusers import PixArtSigmaPipeline

    return encoders.finished(PixArtSigmaPipeline(**_parts(scheduler, options)), tmp)


def alpha(tmp: Any = None, scheduler: Any = None) -> Any:
    """A PixArtAlphaPipeline with micro-conditions, that is with ``sample_size`` 128."""
    from diffusers import PixArtAlphaPipeline

    parts = _parts(scheduler, {"sample_size": 128})
    return encoders.finished(PixArtAlphaPipeline(**parts), tmp)


def _parts(scheduler: Any, options: dict[str, Any]) -> dict[str, Any]:
    import torch
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    torch.manual_seed(0)
    tokenizer = encoders.t5_tokenizer()
    shape = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 3,
        "cross_attention_dim": 24,
        "caption_channels": 16,
        "sample_size": 8,
        "norm_num_groups": 4,
    }
    return {
        "tokenizer": tokenizer,
        "text_encoder": encoders.t5_encoder(tokenizer, 16),
        "vae": encoders.autoencoder(4, scaling_factor=0.13025),
        "transformer": PixArtTransformer2DModel(**shape | options).eval(),
        "scheduler": scheduler or DPMSolverMultistepScheduler(),
    }
