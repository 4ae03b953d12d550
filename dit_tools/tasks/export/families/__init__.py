"""Recipes: how each family's transformer becomes one graph, one file per family.

Contract (``_base.Recipe``): ``condition`` makes random conditions as the family's own encoders
would give them, ``prepared`` gives the module to trace, ``dynamic`` names the axes that stay free.
A graph's inputs are what ``models.onnx_network.graph_inputs`` makes of the forward arguments. Where
diffusers' own forward cannot be traced (complex numbers, lists, sizes read as Python numbers) the
recipe holds an equivalent that can; it is in force during the export only, tested against the
original.

    class SD3(Recipe):
        dynamic = {"hidden_states": LATENTS, "timestep": BATCH, "sample": LATENTS, ...}

        def condition(self, family, sizes, draw):
            return {"pooled_projections": states(draw, sizes.batch, 2048), ...}

    RECIPE = SD3()

Furniture: ``_base`` (the contract), ``_rotary`` (rotary embeddings in real
numbers), ``_patches`` (latents as a row of patches).
"""

from __future__ import annotations

import importlib
import pkgutil

from dit_tools.core.errors import UnsupportedError
from dit_tools.tasks.export.tracing import Recipe


def names() -> list[str]:
    """Families that can be exported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def recipe(family: str) -> Recipe:
    """The recipe of a family by its name. Raises UnsupportedError when there is none."""
    if family not in names():
        raise UnsupportedError(
            f"dit export: models of the family {family} have no recipe", f"choose one of {', '.join(names())}"
        )
    return importlib.import_module(f"dit_tools.tasks.export.families.{family}").RECIPE
