"""A family that dit has never heard of: the one file that a contributor writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import JOINT, LAST, AttentionSpec, BlockSpec
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import BATCH, LATENTS, TEXT, OnnxRecipe, Sizes, random_states
from dit_tools.models.prompt_tokens import tokens


class Chequer(Family):
    """Velocity of a flow, timestep ``1000 t``, text states; joint attention, text first."""

    name = "chequer"
    pipelines = ("ChequerPipeline",)
    marks = ("floors.0.mix.to_q.weight",)
    stacks = ("floors",)
    blocks = {
        "ChequerFloor": BlockSpec(
            output=0,
            attention=(AttentionSpec("mix", JOINT, LAST),),
            mlp=("grow",),
            stream="image",
            text="words",
            residual=("to_out.0", "narrow"),
        )
    }
    lora = {"stairs.{}.qkv": ("floors.{}.mix.to_q", "floors.{}.mix.to_k", "floors.{}.mix.to_v")}

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, 12, D) per branch."""
        texts = {"cond": request.texts, "uncond": request.negatives}
        return {
            branch: {"encoder_hidden_states": pipe.encode_prompt(list(texts[branch]))}
            for branch in request.branches
            if branch in texts
        }

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """T5's tokens."""
        return tokens(pipe.tokenizer, prompt, length)

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of ChequerTransformer."""
        return {"latents": x, "timestep": self.timestep(x, t), "states": condition["encoder_hidden_states"]}

    def onnx(self) -> OnnxRecipe:
        """Traced as it is."""
        return ChequerOnnx()


class ChequerOnnx(OnnxRecipe):
    """Text states (B, L, D)."""

    dynamic = {"latents": LATENTS, "timestep": BATCH, "states": TEXT, "sample": LATENTS}

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states."""
        return {"encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, family.transformer["text_dim"])}


FAMILY = Chequer
