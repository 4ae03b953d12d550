"""Sana: traced as it is; without position embeddings any size will do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dit_tools.tasks.export.tracing import BATCH, LATENTS, TEXT, Recipe, Sizes, mask, states


class Sana(Recipe):
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
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": mask(sizes),
        }

    def refusal(self, transformer: Mapping[str, Any]) -> str:
        """Sana's Sprint models take guidance as an input, and the family does not give it."""
        return "guidance_embeds" if transformer.get("guidance_embeds") else ""


RECIPE = Sana()
