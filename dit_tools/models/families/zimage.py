"""Z-Image: one stream of image and text tokens, called with lists of pictures and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.models.families._shapes import pad_texts
from dit_tools.models.family import ConditionRequest, Family


class ZImage(Family):
    """Predicts ``x0 - noise``, minus our velocity, and is told ``1 - t``: 1 is the picture.

    Cai et al. 2025 (arXiv:2511.22699). The pipeline guides by ``cond + s (cond - uncond)``, so
    our scale is its ``guidance_scale`` plus 1: 6 for its default of 5, 1 for the turbo model's 0.
    Its ``cfg_normalization`` is off by default (``cfg:norm=sample`` is 1 of it), and its
    ``cfg_truncation`` of 1 truncates nothing (a lower one is ``cfg:interval=..``).
    """

    name = "zimage"
    passes_sigmas = True
    default_steps = 50
    default_cfg = 6.0

    @property
    def patch(self) -> int:
        """Latents per token along a side: 2."""
        return int(self.transformer["all_patch_size"][0])

    @property
    def default_size(self) -> int:
        """1024 pixels, as in the pipeline; the configs do not say."""
        return 1024

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and true lengths (B,) per branch, by the tokenizer's chat template.

        The lengths stay on the CPU: they cut the padding off again at every call.
        """
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        texts, no_texts = pipe.encode_prompt(
            list(request.texts),  # the pipeline overwrites the list it is given
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else None,
            **extra,
        )
        branches = {"cond": texts} | ({"uncond": no_texts} if wanted else {})
        return {
            name: {"cap_feats": states, "cap_lengths": mask.sum(1).cpu()}
            for name, (states, mask) in pad_texts(branches).items()
        }

    def timestep(self, x: Array, t: float) -> Array:
        """``1 - t``, shape (B,)."""
        return 1 - super().timestep(x, t) / 1000

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of ZImageTransformer2DModel: lists of (C, 1, h, w) and (L_i, D)."""
        lengths = condition["cap_lengths"].tolist()
        texts = zip(condition["cap_feats"], lengths, strict=True)
        return {
            "x": list(x[:, :, None]),
            "t": self.timestep(x, t),
            "cap_feats": [text[:length] for text, length in texts],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Minus the raw output (B, C, 1, h, w) is the velocity (B, C, h, w)."""
        return super().read(-output[:, :, 0], x, t)


FAMILY = ZImage
