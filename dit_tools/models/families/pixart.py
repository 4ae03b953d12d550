"""PixArt-alpha and PixArt-Sigma, and the built-in models, which are small PixArt transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import CROSS, SELF, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.models.families._positions import rescale_sine_table
from dit_tools.models.families._shapes import read_only
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import (
    BATCH,
    LATENTS,
    TEXT,
    OnnxRecipe,
    Sizes,
    random_states,
    replaced_attribute,
    text_mask,
)
from dit_tools.models.prompt_tokens import tokens


class PixArt(Family):
    """Text by cross-attention; predicts noise and a variance, or velocity if the scheduler says so.

    Chen et al. 2023 (arXiv:2310.00426), Chen et al. 2024 (arXiv:2403.04692). Images have the
    size that was asked for and captions are only lowercased: differs from the pipelines' defaults,
    which sample at the nearest size of a fixed list and rewrite captions where bs4 is installed.
    """

    name = "pixart"
    default_cfg = 4.5
    onnx_text = True
    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    marks = ("adaln_single.linear.weight", "t_block.1.weight")
    original = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    lora = {
        "blocks.{}.attn.qkv": (
            "transformer_blocks.{}.attn1.to_q",
            "transformer_blocks.{}.attn1.to_k",
            "transformer_blocks.{}.attn1.to_v",
        ),
        "blocks.{}.attn.proj": ("transformer_blocks.{}.attn1.to_out.0",),
        "blocks.{}.cross_attn.q_linear": ("transformer_blocks.{}.attn2.to_q",),
        "blocks.{}.cross_attn.kv_linear": ("transformer_blocks.{}.attn2.to_k", "transformer_blocks.{}.attn2.to_v"),
        "blocks.{}.cross_attn.proj": ("transformer_blocks.{}.attn2.to_out.0",),
        "blocks.{}.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
        "blocks.{}.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
    }
    blocks = {
        "BasicTransformerBlock": BlockSpec(
            attention=(AttentionSpec("attn1", SELF), AttentionSpec("attn2", CROSS)), mlp=("ff",)
        )
    }

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch; micro-conditions for PixArt-alpha."""
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        text, mask, no_text, no_mask = pipe.encode_prompt(
            list(request.texts),
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else "",
            clean_caption=False,
            **extra,
        )
        made = {"cond": {"encoder_hidden_states": text, "encoder_attention_mask": mask}}
        if wanted:
            made["uncond"] = {"encoder_hidden_states": no_text, "encoder_attention_mask": no_mask}
        if self.micro_conditions:
            for condition in made.values():
                condition |= _micro(request, text.device)
        return made

    @property
    def micro_conditions(self) -> bool:
        """Whether resolution and aspect ratio are told to the network (PixArt-alpha at 1024 px)."""
        given = self.transformer.get("use_additional_conditions")
        return self.transformer["sample_size"] == 128 if given is None else bool(given)

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """T5's tokens of the lowercased caption."""
        return tokens(pipe.tokenizer, prompt.lower().strip(), length)

    def shortened(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Without the end of the text that no image reads."""
        return read_only(inputs)

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of PixArtTransformer2DModel."""
        made = {
            "hidden_states": x,
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_attention_mask": condition["encoder_attention_mask"],
            "timestep": self.timestep(x, t),
        }
        if self.micro_conditions:
            keys = ("resolution", "aspect_ratio")
            made["added_cond_kwargs"] = {key: condition[key] for key in keys}
        return made

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("pos_embed", rescale_sine_table)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return PixArtOnnx()


def _micro(request: ConditionRequest, device: Any) -> dict[str, Array]:
    """Height and width (B, 2) and their ratio (B, 1), in pixels, float32 (bf16 has 8 bits)."""
    import torch

    count = len(request.texts)
    size = torch.tensor([[*request.size.sides]] * count, dtype=torch.float32)
    return {"resolution": size.to(device), "aspect_ratio": (size[:, :1] / size[:, 1:]).to(device)}


class PixArtOnnx(OnnxRecipe):
    """Text states (B, L, D), mask (B, L); image size (B, 2) and ratio (B, 1) for PixArt-alpha."""

    dynamic = {
        "hidden_states": LATENTS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "encoder_attention_mask": TEXT,
        "resolution": BATCH,
        "aspect_ratio": BATCH,
        "sample": LATENTS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states, mask and micro-conditions."""
        import numpy as np

        width = family.transformer["caption_channels"]
        made = {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": text_mask(sizes),
        }
        if family.micro_conditions:
            size = np.array([[sizes.height, sizes.width]] * sizes.batch, dtype=np.float32)
            made |= {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
        return made

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The transformer with free sizes and micro-conditions as plain inputs."""
        embed = transformer.pos_embed
        with replaced_attribute(embed, "forward", lambda latent: embedded(embed, latent)):
            yield _flat(transformer)


def embedded(embed: Any, latent: Any) -> Any:
    """What diffusers' ``PatchEmbed`` gives, in operations that follow the latents' size."""
    import torch

    tokens = embed.proj(latent)  # (B, D, rows, columns)
    rows, columns = tokens.shape[-2:]
    width = embed.pos_embed.shape[-1]
    rates = torch.arange(width // 4, dtype=torch.float64) / (width / 4.0)
    rates = (1.0 / 10000**rates).float()
    angles = []
    for size in (columns, rows):  # the width comes first
        index = torch.arange(size, dtype=torch.float32)
        scaled = index / (size / embed.base_size) / embed.interpolation_scale
        outer = scaled[:, None] * rates
        angles.append(torch.cat([outer.sin(), outer.cos()], dim=1))  # (size, D/2)
    across = angles[0][None].expand(rows, -1, -1)
    down = angles[1][:, None].expand(-1, columns, -1)
    positions = torch.cat([across, down], dim=-1).flatten(0, 1)  # (N, D)
    return tokens.flatten(2).transpose(1, 2) + positions


def _flat(transformer: Any) -> Any:
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer

        def forward(self, **inputs: Any) -> Any:
            keys = [key for key in ("resolution", "aspect_ratio") if key in inputs]
            micro = {key: inputs.pop(key) for key in keys}
            extra = {"added_cond_kwargs": micro} if micro else {}
            return self.net(**inputs, **extra, return_dict=False)[0]

    return Flat()


FAMILY = PixArt
