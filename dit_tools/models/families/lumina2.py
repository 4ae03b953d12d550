"""Lumina-Image 2.0: text and image tokens in one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.models.family import ConditionRequest, Family


class Lumina2(Family):
    """Predicts ``x0 - noise``, minus our velocity, and is told ``1 - t``: 1 is the picture.

    Qin et al. 2025 (arXiv:2503.21758). Prompts go behind the pipeline's system prompt, negative
    prompts do not. The pipeline's guidance keeps the length of the conditional prediction along
    the last axis, a latent row at a time; that is ``default_guidance``. Its ``cfg_trunc_ratio`` is
    1 by default, which truncates nothing.
    """

    name = "lumina2"
    passes_sigmas = True
    default_steps = 30
    default_cfg = 4.0
    default_guidance = "cfg:norm=row"

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """The number that the pipeline's shift sees: the second axis of its latents, C.

        Not the number of image tokens; the released model has a static shift, which ignores it.
        """
        return int(latent_shape[-3])

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, L = 256 unless told otherwise."""
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        text, mask, no_text, no_mask = pipe.encode_prompt(
            list(request.texts),
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else None,
            **extra,
        )
        made = {"cond": {"encoder_hidden_states": text, "encoder_attention_mask": mask}}
        if wanted:
            made["uncond"] = {"encoder_hidden_states": no_text, "encoder_attention_mask": no_mask}
        return made

    def timestep(self, x: Array, t: float) -> Array:
        """``1 - t``, shape (B,)."""
        count = float(self.scheduler.get("num_train_timesteps", 1000))
        return 1 - super().timestep(x, t) / count

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of Lumina2Transformer2DModel."""
        return {
            "hidden_states": x,
            "timestep": self.timestep(x, t),
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_attention_mask": condition["encoder_attention_mask"],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Minus the raw output (B, C, h, w) is the velocity."""
        return super().read(-output, x, t)


FAMILY = Lumina2
