"""DiT: one size, because the transformer reads any row of patches as a square."""

from __future__ import annotations

from typing import Any

from dit_tools.tasks.export.tracing import BATCH, Recipe, Sizes


class DiT(Recipe):
    """Class labels (B,)."""

    dynamic = {"hidden_states": BATCH, "timestep": BATCH, "class_labels": BATCH, "sample": BATCH}
    fixed_size = True

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Labels, the null class among them."""
        labels = draw.integers(0, family.classes, sizes.batch)
        labels[-1] = family.classes
        return {"class_labels": labels}


RECIPE = DiT()
