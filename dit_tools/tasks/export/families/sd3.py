"""Stable Diffusion 3: traced as it is; sizes up to the table of position embeddings."""

from __future__ import annotations

from typing import Any

from dit_tools.tasks.export.tracing import BATCH, LATENTS, TEXT, Recipe, Sizes, states


class SD3(Recipe):
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
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, config["joint_attention_dim"]),
            "pooled_projections": states(draw, sizes.batch, config["pooled_projection_dim"]),
        }


RECIPE = SD3()
