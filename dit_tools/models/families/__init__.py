"""Families: how each transformer class is called, one file each.

Contract (``_base.Family``): latents stay unpacked (B, C, h, w); ``inputs(x, t, condition)`` gives
the transformer's own ``forward`` arguments, which are also the ONNX graph's input names; ``read``
turns the raw output into a ``Prediction``. Packing, ``t * 1000``, sign flips and latent statistics
live here and nowhere else. ``FAMILIES`` maps a diffusers pipeline class to the family's module.
"""

from __future__ import annotations

import importlib
from typing import Any

FAMILIES = {
    "DiTPipeline": "dit",
    "PixArtAlphaPipeline": "pixart",
    "PixArtSigmaPipeline": "pixart",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "SanaPipeline": "sana",
    "Lumina2Pipeline": "lumina2",
    "Lumina2Text2ImgPipeline": "lumina2",
    "QwenImagePipeline": "qwenimage",
    "ZImagePipeline": "zimage",
}


def family_class(pipeline: str) -> type[Any] | None:
    """The family of a diffusers pipeline class, or None when it has no adapter."""
    name = FAMILIES.get(pipeline)
    if name is None:
        return None
    module = importlib.import_module(f"dit_tools.models.families.{name}")
    return module.FAMILY
