"""A transformer of our own with blocks that no library knows, and its pipeline.

What dit knows of it is in ``made_up/chequer.py`` and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.nn import functional

from dit_tools.models import families
from tests.support import encoders

LENGTH = 12


def install() -> None:
    """Let dit find the family file, as it finds its own."""
    folder = str(Path(__file__).parent / "made_up")
    if folder not in families.__path__:
        families.__path__.append(folder)


class Mix(nn.Module):
    """Attention of words and image tokens among each other."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        return self.to_out[0](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Grow(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(functional.silu(self.widen(x)))


class ChequerFloor(nn.Module):
    """A block of two streams, which gives (image, words)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.mix, self.grow = nn.LayerNorm(width), Mix(width, heads), Grow(width)

    def forward(self, image: Tensor, words: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([words, image], 1)
        both = both + self.mix(self.norm(both) * (1 + time[:, None]))
        words, image = both[:, : words.shape[1]], both[:, words.shape[1] :]
        return image + self.grow(image), words


class ChequerTransformer(ModelMixin, ConfigMixin):
    """Patches of 2x2 latents, sines of their places, floors, and back."""

    @register_to_config
    def __init__(
        self, in_channels: int = 4, width: int = 24, heads: int = 2, depth: int = 3, text_dim: int = 16, sample_size=8
    ):
        super().__init__()
        self.enter, self.leave = nn.Linear(4 * in_channels, width), nn.Linear(width, 4 * in_channels)
        self.read = nn.Linear(text_dim, width)
        self.clock = nn.Linear(1, width)
        self.floors = nn.ModuleList([ChequerFloor(width, heads) for _ in range(depth)])

    def forward(self, latents: Tensor, timestep: Tensor, states: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        b, c, h, w = latents.shape
        cells = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        rows = torch.arange(h // 2, device=latents.device)[:, None, None]
        columns = torch.arange(w // 2, device=latents.device)[None, :, None]
        rates = torch.arange(1, self.config["width"] + 1, device=latents.device) / 10
        places = torch.sin(rows * rates) + torch.cos(columns * rates)
        image = self.enter(cells) + places.flatten(0, 1)[None].to(cells.dtype)
        words, time = self.read(states), self.clock(timestep[:, None].to(states.dtype) / 1000)
        for floor in self.floors:
            image, words = floor(image, words, time)
        out = self.leave(image).reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return (out.reshape(b, c, h, w),)


class ChequerPipeline(DiffusionPipeline):
    """Its parts, and how it encodes text."""

    def __init__(self, tokenizer: Any, text_encoder: Any, vae: AutoencoderKL, transformer: Any, scheduler: Any):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )

    def encode_prompt(self, texts: list[str]) -> Tensor:
        given = self.tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return self.text_encoder(given.input_ids, given.attention_mask)[0]


def pipeline() -> Any:
    """Random weights; the sample size has to be in the config, as in diffusers' transformers."""
    install()
    torch.manual_seed(0)
    tokenizer = encoders.t5_tokenizer()
    transformer = ChequerTransformer()
    transformer.register_to_config(patch_size=2)
    pipe = ChequerPipeline(
        tokenizer,
        encoders.t5_encoder(tokenizer, 16),
        encoders.autoencoder(4, scaling_factor=0.5),
        transformer.eval(),
        FlowMatchEulerDiscreteScheduler(),
    )
    return encoders.finished(pipe)
