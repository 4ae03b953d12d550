"""PixArt-alpha and PixArt-Sigma, and the built-in models, which are small PixArt transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.models.families._shapes import read_only
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.words import tokens


class PixArt(Family):
    """Text by cross-attention; predicts noise and a variance, or velocity if the scheduler says so.

    Chen et al. 2023 (arXiv:2310.00426), Chen et al. 2024 (arXiv:2403.04692). Pictures have the
    size that was asked for and captions are only lowercased: differs from the pipelines' defaults,
    which sample at the nearest size of a fixed list and rewrite captions where bs4 is installed.
    """

    name = "pixart"
    default_cfg = 4.5

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
        """Without the end of the text that no picture reads."""
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


def _micro(request: ConditionRequest, device: Any) -> dict[str, Array]:
    """Height and width (B, 2) and their ratio (B, 1), in pixels, float32 (bf16 has 8 bits)."""
    import torch

    count = len(request.texts)
    size = torch.tensor([[*request.size.sides]] * count, dtype=torch.float32)
    return {"resolution": size.to(device), "aspect_ratio": (size[:, :1] / size[:, 1:]).to(device)}


FAMILY = PixArt
