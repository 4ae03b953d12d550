"""Sana: linear attention over the 32x compressed latents of a deep-compression autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import CROSS, SELF, AttentionSpec, BlockSpec
from dit_tools.models.families._shapes import read_only
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import BATCH, LATENTS, TEXT, OnnxRecipe, Sizes, random_states, text_mask
from dit_tools.models.prompt_tokens import tokens


class Sana(Family):
    """Text by cross-attention, velocity of a flow, timesteps ``1000 t timestep_scale``.

    Xie et al. 2024 (arXiv:2410.10629). Prompts go behind the pipeline's "complex human
    instruction" (Sec. 3.1); negative prompts do not.
    """

    name = "sana"
    default_steps = 20
    default_cfg = 4.5
    pipelines = ("SanaPipeline",)
    marks = ("caption_norm.weight", "blocks.0.cross_attn.q_linear.weight")
    original = "Efficient-Large-Model/Sana_1600M_1024px_diffusers"
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
    }
    blocks = {
        "SanaTransformerBlock": BlockSpec(
            attention=(AttentionSpec("attn1", SELF, softmax=False), AttentionSpec("attn2", CROSS)),
            mlp=("ff",),
            subset=False,  # the feed-forward layers convolve the grid
        )
    }

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side: 32 for the DC-AE of Sana."""
        return 2 ** (len(self.vae["encoder_block_out_channels"]) - 1)

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, L = 300 unless told otherwise."""
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        text, mask, no_text, no_mask = pipe.encode_prompt(
            list(request.texts),
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else "",
            complex_human_instruction=instruction(pipe),
            **extra,
        )
        made = {"cond": {"encoder_hidden_states": text, "encoder_attention_mask": mask}}
        if wanted:
            made["uncond"] = {"encoder_hidden_states": no_text, "encoder_attention_mask": no_mask}
        return made

    def timestep(self, x: Array, t: float) -> Array:
        """``1000 t``, an integer where the scheduler gives integers, times ``timestep_scale``."""
        return super().timestep(x, t) * float(self.transformer.get("timestep_scale", 1.0))

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """Gemma's tokens: its first mark, then the prompt; of the instruction nothing is seen.

        The instruction ends in a space, which becomes part of the prompt's first token.
        """
        return tokens(pipe.tokenizer, prompt.lower().strip(), length)

    def shortened(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Without the end of the text that no image reads."""
        return read_only(inputs)

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of SanaTransformer2DModel."""
        return {
            "hidden_states": x,
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_attention_mask": condition["encoder_attention_mask"],
            "timestep": self.timestep(x, t),
        }

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return SanaOnnx()


def instruction(pipe: Any) -> list[str] | None:
    """The instruction that the pipeline's own call puts before every prompt by default."""
    import inspect

    return inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default


class SanaOnnx(OnnxRecipe):
    """Text states (B, L, D) and mask (B, L)."""

    dynamic = {
        "hidden_states": LATENTS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "encoder_attention_mask": TEXT,
        "sample": LATENTS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and mask."""
        width = family.transformer["caption_channels"]
        return {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": text_mask(sizes),
        }

    def refusal(self, transformer: Mapping[str, Any]) -> str:
        """Sana's Sprint models take guidance as an input, and the family does not give it."""
        return "guidance_embeds" if transformer.get("guidance_embeds") else ""


FAMILY = Sana
