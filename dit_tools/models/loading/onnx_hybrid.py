"""Parts of a model that stay in torch while its transformer runs in ONNX Runtime.

Everything outside them is numpy, so arrays are converted where they come and go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.models.family import ConditionRequest, Family


def torch_parts(
    folder: Path, family: Family, device: str, *, text: bool, vae: bool
) -> tuple[NumpyText | None, NumpyCodec | None]:
    """Text encoder and codec in torch, each where it is wanted; the transformer is not loaded.

    Raises ModelError for damaged files, as ``torch_loader`` does.
    """
    import torch

    from dit_tools.models.backends.torch_network import PipelineTextEncoder, TorchCodec
    from dit_tools.models.loading import torch_loader, validation

    validation.check_folder(folder, without="transformer")
    left_out: dict[str, Any] = {"transformer": None} | ({} if vae else {"vae": None})
    if not text:
        left_out |= {name: None for name in validation.components(folder) if name.startswith("text_enc")}
    with torch_loader.quiet(), torch_loader.explained(folder):
        pipe = torch_loader.from_folder(folder, torch.float32, **left_out).to(device)
    pipe.set_progress_bar_config(disable=True)
    return (
        NumpyText(PipelineTextEncoder(pipe, family)) if text else None,
        NumpyCodec(TorchCodec(pipe.vae, family)) if vae else None,
    )


class NumpyText:
    """A text encoder in torch whose conditions are numpy arrays."""

    def __init__(self, encode: Callable[[ConditionRequest], dict[str, dict[str, Array]]]):
        self.encode = encode

    def __call__(self, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Branch name -> condition arrays, float32 or integer."""
        return {
            branch: {name: _numpy(value) for name, value in condition.items()}
            for branch, condition in self.encode(request).items()
        }


class NumpyCodec:
    """An autoencoder in torch with numpy latents."""

    def __init__(self, codec: Any):
        self.codec = codec

    def decode(self, latents: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1]."""
        import torch

        return self.codec.decode(torch.as_tensor(latents).to(self.codec.vae.device))

    def encode(self, pixels: Array) -> Array:
        """Latents (B, C, h, w)."""
        return _numpy(self.codec.encode(pixels))


def _numpy(value: Array) -> Array:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
