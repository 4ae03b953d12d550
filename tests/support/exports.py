"""Tiny models of every family and their exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dit_tools.core.size import Size
from tests.support import dit, flux, lumina2, pixart, qwenimage, sana, sd3, zimage

FAMILIES = {
    "dit": dit.pipeline,
    "flux": flux.pipeline,
    "lumina2": lumina2.pipeline,
    "pixart": pixart.pipeline,
    "pixart-alpha": pixart.alpha,
    "qwenimage": qwenimage.pipeline,
    "sana": sana.pipeline,
    "sd3": sd3.pipeline,
    "zimage": zimage.pipeline,
}


def saved(name: str, root: Path) -> Path:
    """The folder ``root/name`` with a tiny pipeline, written the first time."""
    if not (root / name).exists():
        FAMILIES[name](root / name)
    return root / name


def exported(model: Path, output: Path, **wanted: Any) -> Path:
    """The folder ``output`` with the export of a folder, written the first time."""
    from dit_tools.models.loading.resolve import resolve
    from dit_tools.tasks.export.export import export
    from dit_tools.tasks.export.preflight import ExportConfig

    if not output.exists():
        export(resolve(str(model)), ExportConfig(output, **wanted))
    return output


def sampled(model: Any, steps: int = 3, size: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Final latents (2, C, h, w), numpy, and pixels of a guided run from a start of its own."""
    import numpy as np

    from dit_tools.core.arrays import to_numpy
    from dit_tools.core.plan import Plan
    from dit_tools.models.family import ConditionRequest
    from tests.support import loop

    words = ("1", "207") if model.family.name == "dit" else ("a red apple", "blue night by the sea")
    size = size or picture(model.family)
    plan = Plan.parse(
        steps,
        {
            "schedule": "native",
            "solver": model.family.facts.solver,
            "guidance": "cfg:scale=3.0",
            "noise": "philox",
            "cache": "none",
        },
    )
    shape = (2, *model.family.latent_shape(Size(*size)))
    start = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    conditions = model.encode(ConditionRequest(words, ("", ""), Size(*size)))
    *_, last = loop.sample(model, conditions, model.to_array(start), plan)
    return to_numpy(last.x), model.codec.decode(last.x)


def picture(family: Any) -> tuple[int, int]:
    """A size in pixels that is not square where the family can do that, and no traced one."""
    if family.name == "dit":
        return family.default_size, family.default_size
    unit = family.vae_scale * family.patch
    return 4 * unit, 8 * unit


def relative(got: Any, expected: Any) -> float:
    """Norm of the difference by the norm."""
    import numpy as np

    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
