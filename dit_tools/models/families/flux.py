"""Flux.1: two-stream and one-stream blocks on 2x2 patches, with guidance as an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array, like
from dit_tools.core.prediction import Prediction
from dit_tools.models.families._packed import PackedFamily
from dit_tools.models.families._shapes import pack, unpack
from dit_tools.models.family import ConditionRequest
from dit_tools.models.words import tokens

EMBEDDED_GUIDANCE = 3.5
"""``guidance_scale`` of the pipeline's own call: the value that Flux.1-dev is told."""


class Flux(PackedFamily):
    """Velocity of a flow, timestep ``t``, T5 states, CLIP's pooled vector, embedded guidance.

    Black Forest Labs 2025 (arXiv:2506.15742, Sec. 2). Flux.1-dev is guidance-distilled: ordinary
    guidance is off (``default_cfg`` 1); with it, at twice the cost, a negative prompt counts
    ("true CFG" in the pipeline). The autoencoder's latents are sampled unpacked here.
    """

    name = "flux"
    passes_sigmas = True
    default_steps = 28
    default_cfg = 1.0

    @property
    def patch(self) -> int:
        """2, which the pipeline has in its code and the transformer's config does not say."""
        return 2

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D), pooled vectors (B, P) and guidance (B,) per branch, L = 512."""
        texts = {"cond": request.texts, "uncond": request.negatives}
        made = {}
        for branch in ("cond", "uncond"):
            if branch in request.branches:
                made[branch] = self._branch(pipe, list(texts[branch]), request)
        return made

    def _branch(self, pipe: Any, texts: list[str], request: ConditionRequest) -> dict[str, Array]:
        import torch

        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        states, pooled, _ = pipe.encode_prompt(texts, **extra)
        condition = {"encoder_hidden_states": states, "pooled_projections": pooled}
        if self.transformer.get("guidance_embeds"):
            asked = request.embedded_guidance
            value = EMBEDDED_GUIDANCE if asked is None else asked
            condition["guidance"] = torch.full((len(texts),), float(value), device=states.device)
        return condition

    def timestep(self, x: Array, t: float) -> Array:
        """``t``, shape (B,)."""
        return super().timestep(x, t) / float(self.scheduler.get("num_train_timesteps", 1000))

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """T5's tokens."""
        return tokens(pipe.tokenizer_2, prompt, length)

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of FluxTransformer2DModel; positions (N, 3) are (0, row, column)."""
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        length = condition["encoder_hidden_states"].shape[1]
        return {
            "hidden_states": pack(x, self.patch),
            "timestep": self.timestep(x, t),
            "img_ids": positions(rows, columns, x),
            "txt_ids": like(_zeros(length), x),
            **condition,
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Tokens (B, N, 4 C) as velocity (B, C, h, w)."""
        return super().read(unpack(output, x.shape[-2], x.shape[-1], self.patch), x, t)


def positions(rows: int, columns: int, reference: Array) -> Array:
    """Row and column of every image token, (rows * columns, 3) with zeros in front."""
    import numpy as np

    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    flat = grid.reshape(rows * columns, 2).astype(np.float32)
    return like(np.concatenate([_zeros(rows * columns)[:, :1], flat], axis=1), reference)


def _zeros(length: int) -> Any:
    import numpy as np

    return np.zeros((length, 3), dtype=np.float32)


FAMILY = Flux
