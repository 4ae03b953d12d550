"""Networks, codecs and text encoders in PyTorch, from a diffusers pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import PositionSpec
from dit_tools.models.family import ConditionRequest, Family


class TorchNetwork:
    """A diffusers transformer: tensors in float32 outside, in the weights' dtype inside."""

    offers = frozenset({"blocks", "stack", "gradients", "torch"})

    def __init__(self, module: Any, family: Family | None = None):
        self.module, self._family = module, family

    def __call__(self, **inputs: Any) -> Array:
        """The raw output in float32; gradients are recorded where an input asks for them."""
        import torch

        with torch.set_grad_enabled(_asked(inputs)):
            output = self.module(**self.prepared(inputs), return_dict=False)[0]
            if isinstance(output, list):  # one tensor per image
                output = torch.stack(output)
            return output.float()

    def prepared(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What the module is given: in its dtype, without text that no image reads."""
        made = self._family.shortened(inputs) if self._family else inputs
        return _cast(made, self.module.dtype)  # asked once: it looks through all parameters

    def blocks(self) -> list[Any]:
        """The transformer's blocks, for methods that hook them."""
        from dit_tools.models.blocks import blocks

        return blocks(self.module, self._family.stacks, self._family.blocks) if self._family else []

    @property
    def positions(self) -> PositionSpec | None:
        """How the positions of image tokens are rescaled, where they can be."""
        return self._family.positions() if self._family else None


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, list):
        return [_cast(item, dtype) for item in value]
    if getattr(value, "is_floating_point", lambda: False)() and value.ndim != 1:
        return value.to(dtype)  # timesteps (B,) keep float32, as in diffusers
    return value


def _asked(value: Any) -> bool:
    """Whether any tensor in it wants a gradient."""
    if isinstance(value, dict | list):
        return any(map(_asked, value.values() if isinstance(value, dict) else value))
    return bool(getattr(value, "requires_grad", False))


class TorchCodec:
    """A diffusers autoencoder with the family's latent statistics."""

    def __init__(self, vae: Any, family: Family):
        self.vae, self.family = vae, family

    def decode(self, latents: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1], numpy float32, on the CPU."""
        import torch

        with torch.no_grad():
            return self.pixels(latents).clamp(0, 1).cpu().numpy()

    def pixels(self, latents: Array) -> Array:
        """The same as a tensor on its device, not clipped, with gradients where they are on."""
        z = self.family.to_vae(latents.to(self.vae.dtype))
        pixels = self.vae.decode(z, return_dict=False)[0].float()
        if self.family.frame_axis:
            pixels = pixels[:, :, 0]
        return pixels / 2 + 0.5

    def encode(self, pixels: Array) -> Array:
        """Latents (B, C, h, w), the mean of the posterior; with gradients where pixels ask."""
        import torch

        with torch.set_grad_enabled(_asked(pixels)):
            x = torch.as_tensor(pixels).to(self.vae.device, self.vae.dtype) * 2 - 1
            out = self.vae.encode(x[:, :, None] if self.family.frame_axis else x)
            z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent
            return self.family.from_vae(z.float())


class PipelineTextEncoder:
    """The diffusers pipeline's own prompt encoding, called through the family.

    ``most``: tokens that the model was trained with, where that is fewer than the pipeline takes.
    """

    def __init__(self, pipe: Any, family: Family, most: int | None = None):
        self.pipe, self.family, self.most = pipe, family, most

    def __call__(self, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Branch name -> condition arrays."""
        import torch

        if self.most:
            length = min(request.max_tokens or self.most, self.most)
            request = replace(request, max_tokens=length)
        with torch.no_grad():
            return self.family.encode(self.pipe, request)

    def unread(self, text: str, length: int | None) -> str:
        """The end of a prompt that is left out, as far as that is known: of built-in models."""
        if not self.most:
            return ""
        from tokenizers import Tokenizer

        from dit_tools.models.prompt_tokens import unread_words

        own = Tokenizer.from_str(self.pipe.tokenizer.backend_tokenizer.to_str())
        return unread_words(own, text, min(length or self.most, self.most))
