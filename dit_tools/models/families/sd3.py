"""Stable Diffusion 3 and 3.5: joint attention over image and three text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import JOINT, SELF, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.families._positions import rescale_sine_table
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import BATCH, LATENTS, TEXT, OnnxRecipe, Sizes, random_states
from dit_tools.models.prompt_tokens import PADDING, tokens


class SD3(Family):
    """Velocity of a flow, timestep ``1000 t``, text states and a pooled text vector.

    Esser et al. 2024 (arXiv:2403.03206). Two CLIP encoders and T5; where T5 is missing the
    pipeline puts zeros in its place.
    """

    name = "sd3"
    default_steps = 28
    default_cfg = 7.0
    pipelines = ("StableDiffusion3Pipeline",)
    marks = (
        "transformer_blocks.0.attn.add_q_proj.weight+pos_embed.proj.weight",
        "joint_blocks.0.context_block.adaLN_modulation.1.bias",
    )
    original = "stabilityai/stable-diffusion-3.5-medium"
    lora = {
        "joint_blocks.{}.x_block.attn.qkv": (
            "transformer_blocks.{}.attn.to_q",
            "transformer_blocks.{}.attn.to_k",
            "transformer_blocks.{}.attn.to_v",
        ),
        "joint_blocks.{}.x_block.attn.proj": ("transformer_blocks.{}.attn.to_out.0",),
        "joint_blocks.{}.x_block.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
        "joint_blocks.{}.x_block.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
        "joint_blocks.{}.context_block.attn.qkv": (
            "transformer_blocks.{}.attn.add_q_proj",
            "transformer_blocks.{}.attn.add_k_proj",
            "transformer_blocks.{}.attn.add_v_proj",
        ),
        "joint_blocks.{}.context_block.attn.proj": ("transformer_blocks.{}.attn.to_add_out",),
        "joint_blocks.{}.context_block.mlp.fc1": ("transformer_blocks.{}.ff_context.net.0.proj",),
        "joint_blocks.{}.context_block.mlp.fc2": ("transformer_blocks.{}.ff_context.net.2",),
        "joint_blocks.{}.x_block.attn2.qkv": (
            "transformer_blocks.{}.attn2.to_q",
            "transformer_blocks.{}.attn2.to_k",
            "transformer_blocks.{}.attn2.to_v",
        ),
        "joint_blocks.{}.x_block.attn2.proj": ("transformer_blocks.{}.attn2.to_out.0",),
        "joint_blocks.{}.x_block.adaLN_modulation.1": ("transformer_blocks.{}.norm1.linear",),
    }
    blocks = {
        "JointTransformerBlock": BlockSpec(  # gives (encoder_hidden_states or None, hidden_states)
            output=1,
            attention=(AttentionSpec("attn", JOINT), AttentionSpec("attn2", SELF)),  # attn2: SD 3.5 medium
            mlp=("ff", "ff_context"),
        )
    }

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Latent shape (C, h, w). Raises UsageError beyond the table of position embeddings."""
        shape = super().latent_shape(size)
        limit = self.transformer.get("pos_embed_max_size")
        if limit:
            most = int(limit) * self.patch * self.vae_scale
            for option, asked in (("--height", size.height), ("--width", size.width)):
                if asked > most:
                    raise UsageError(f"{option} {asked}: too large for this model", f"use {most}")
        return shape

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D), CLIP's before T5's, and pooled vectors (B, P) per branch.

        L is CLIP's length plus 256 T5 tokens unless told otherwise.
        """
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        text, no_text, pooled, no_pooled = pipe.encode_prompt(
            list(request.texts),
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else None,
            **extra,
        )
        made = {"cond": {"encoder_hidden_states": text, "pooled_projections": pooled}}
        if wanted:
            made["uncond"] = {"encoder_hidden_states": no_text, "pooled_projections": no_pooled}
        return made

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """CLIP's tokens, then T5's."""
        short = min(int(pipe.tokenizer.model_max_length), length)
        rest = [PADDING] * (length - short)
        if pipe.tokenizer_3 is not None and rest:
            rest = tokens(pipe.tokenizer_3, prompt, length - short)
        return tokens(pipe.tokenizer, prompt, short) + rest

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of SD3Transformer2DModel."""
        return {
            "hidden_states": x,
            "timestep": self.timestep(x, t),
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "pooled_projections": condition["pooled_projections"],
        }

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("pos_embed", rescale_sine_table)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return SD3Onnx()


class SD3Onnx(OnnxRecipe):
    """Text states (B, L, D) and pooled vectors (B, P)."""

    dynamic = {
        "hidden_states": LATENTS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "pooled_projections": BATCH,
        "sample": LATENTS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and pooled vectors."""
        config = family.transformer
        return {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, config["joint_attention_dim"]),
            "pooled_projections": random_states(draw, sizes.batch, config["pooled_projection_dim"]),
        }


FAMILY = SD3
