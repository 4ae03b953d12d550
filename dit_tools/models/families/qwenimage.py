"""Qwen-Image: a two-stream transformer on 2x2 patches of a video autoencoder's latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array, like
from dit_tools.core.prediction import Prediction
from dit_tools.models.families._packed import PackedFamily
from dit_tools.models.families._shapes import pack, pad_texts, unpack
from dit_tools.models.family import ConditionRequest

MAX_TOKENS = 512
"""Text tokens behind the prompt template: ``max_sequence_length`` of the pipeline's own call."""


class QwenImage(PackedFamily):
    """Velocity of a flow, timestep ``t``, text and image streams with joint attention.

    Wu et al. 2025 (arXiv:2508.02324). The autoencoder has statistics per channel and a frame axis,
    which exists from ``to_vae`` on only. The pipeline's guidance ("true CFG") keeps the length of
    the conditional prediction token by token, that is per 2x2 patch: ``default_guidance``. Without
    a negative prompt the pipeline does not guide at all; ours takes the empty one.
    """

    name = "qwenimage"
    frame_axis = True
    passes_sigmas = True
    default_steps = 50
    default_cfg = 4.0
    default_guidance = "cfg:norm=patch"

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side: 8."""
        return 2 ** len(self.vae["temperal_downsample"])

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, the template's own tokens dropped."""
        wanted = {"cond": request.texts, "uncond": request.negatives}
        length = request.max_tokens or MAX_TOKENS
        branches = {}
        for branch in ("cond", "uncond"):
            if branch in request.branches:
                states, mask = pipe.encode_prompt(list(wanted[branch]), max_sequence_length=length)
                branches[branch] = _texts(states, mask)
        return {
            name: {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}
            for name, (states, mask) in pad_texts(branches).items()
        }

    def timestep(self, x: Array, t: float) -> Array:
        """``t``, shape (B,)."""
        return super().timestep(x, t) / 1000

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of QwenImageTransformer2DModel."""
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        return {
            "hidden_states": pack(x, self.patch),
            "timestep": self.timestep(x, t),
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_hidden_states_mask": condition["encoder_hidden_states_mask"],
            "img_shapes": [[(1, rows, columns)]] * x.shape[0],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Tokens (B, N, 4 C) as velocity (B, C, h, w)."""
        return super().read(unpack(output, x.shape[-2], x.shape[-1], self.patch), x, t)

    def to_vae(self, x: Array) -> Array:
        """Latents (B, C, h, w) times deviation plus mean, with one frame: (B, C, 1, h, w)."""
        mean, deviation = self._statistics(x)
        return (x * deviation + mean)[:, :, None]

    def from_vae(self, z: Array) -> Array:
        """The inverse of ``to_vae``."""
        z = z[:, :, 0]
        mean, deviation = self._statistics(z)
        return (z - mean) / deviation

    def _statistics(self, reference: Array) -> tuple[Array, Array]:
        import numpy as np

        mean, deviation = (
            like(np.array(self.vae[key], dtype=np.float32), reference).reshape(1, -1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        return mean, deviation


def _texts(states: Array, mask: Array | None) -> list[Array]:
    if mask is None:  # the pipeline's way of saying that nothing was padded
        return list(states)
    lengths = mask.sum(1).tolist()
    return [text[:length] for text, length in zip(states, lengths, strict=True)]


FAMILY = QwenImage
