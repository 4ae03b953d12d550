"""Tiny models in folders, short runs of them, and the check of an error's one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dit_tools.core.size import Size
from tests.support import dit, flux, lumina2, pixart, qwenimage, sana, sd3, zimage

FAMILIES = {
    "dit": dit,
    "flux": flux,
    "lumina2": lumina2,
    "pixart": pixart,
    "qwenimage": qwenimage,
    "sana": sana,
    "sd3": sd3,
    "zimage": zimage,
}
PLAN = {"schedule": "native", "solver": "euler", "guidance": "cfg:scale=3.0", "noise": "philox", "cache": "none"}
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def copy(source: Path, target: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    shutil.copytree(source, target)
    return target


def draw(model: Any, steps: int = 3) -> tuple[Any, Any]:
    """Latents and pixels of a short guided run."""
    from dit_tools.core.plan import Plan
    from dit_tools.models.family import ConditionRequest
    from tests.support import loop

    plan = Plan.parse(steps, PLAN)
    asked = ConditionRequest(("a red apple",), ("blurry",), Size.square(32))
    x, noise = loop.start(model, plan, model.family.latent_shape(Size.square(32)), (3,))
    for step in loop.sample(model, model.encode(asked), x, plan, noise):
        x = step.x
    return x, model.codec.decode(x)


def refused(reference: Any, message: str, kind: Any = None, **wishes: Any) -> str:
    """Assert that loading fails in one line with a remedy, and give the line."""
    from dit_tools.core.errors import ModelError
    from dit_tools.models.loading.load import LoadOptions, load

    with pytest.raises(kind or ModelError, match=message) as caught:
        load(str(reference), LoadOptions(**{"device": "cpu"} | wishes))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)
