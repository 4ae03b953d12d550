"""A loaded model that is asked with several prompts over one schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, is_torch
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Path
from dit_tools.core.plan import Plan
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import Run
from dit_tools.denoiser import Denoiser
from dit_tools.generating.jobs import Job
from dit_tools.generating.loading import Load, Loader
from dit_tools.generating.request import Settings, plan_of, size_of
from dit_tools.models.families._base import Prompts
from dit_tools.models.model import Model

PRECISIONS = ("float32", "float64")
Change = Callable[[dict[str, dict[str, Array]]], dict[str, dict[str, Array]]]
"""From conditions per branch to others."""


class Precise:
    """A denoiser whose predictions have the precision of the latents.

    A network answers in float32. A float32 output times a number, added to latents in float64,
    often lands just between two float32 numbers, where the next call's rounding decides by the last
    bit of float64: exact inversion would be lost to 1e-7.
    """

    def __init__(self, denoise: Denoiser, path: Path):
        self.denoise, self.path = denoise, path

    def __call__(self, x: Array, t: float) -> Prediction:
        """The guided prediction; ``raw`` has the dtype of ``x``."""
        p = self.denoise(x, t)
        return p.with_raw(precise(p.raw, str(x.dtype).removeprefix("torch.")))


@dataclass
class Session:
    """``model`` with a plan for pictures of one size; counts its network calls.

    ``shape``: latent shape (C, h, w); ``size``: height and width in pixels.
    """

    model: Model
    settings: Settings
    plan: Plan
    size: tuple[int, int]
    shape: tuple[int, ...]
    run: Run = field(default_factory=lambda: Run((1.0, 0.0), 0))

    @property
    def calls(self) -> int:
        """Network calls so far."""
        return self.run.count["network calls"]

    def times(self) -> tuple[float, ...]:
        """The times of the plan."""
        return self.plan.times(self.model, (1, *self.shape))

    def denoiser(
        self, prompts: Sequence[str], scale: float | None = None, negative: str | None = None,
        change: Change | None = None,
    ) -> Precise:  # fmt: skip
        """A denoiser of ``len(prompts)`` rows. ``scale`` replaces the plan's guidance by CFG's.

        ``change`` takes the conditions of the prompts and gives those to use, of as many rows as
        the latents will have.
        """
        guidance = self.plan.guidance
        if scale is not None:
            guidance = spec.parse("guidance", f"cfg:scale={scale!r}")
        settings = self.settings
        negative = settings.negative_prompt if negative is None else negative
        conditions = self.model.encode(
            Prompts(
                tuple(prompts), (negative,) * len(prompts), *self.size,
                branches=tuple(branch.name for branch in guidance.branches),
                embedded_guidance=settings.embedded_guidance, max_tokens=settings.max_tokens,
            )
        )  # fmt: skip
        conditions = change(conditions) if change else conditions
        model = self.model
        guide = guidance.begin()
        denoise = Denoiser(model.family, model.network, conditions, guide, self.run)
        return Precise(denoise, model.path)


def open_session(model: Model, settings: Settings) -> Session:
    """A session of the settings' size and plan.

    Raises UnsupportedError for a model without adapter or methods it cannot carry, UsageError for a
    size that it cannot make.
    """
    if model.pipeline is not None:
        raise UnsupportedError(
            f"--model {model.name}: its pipeline has no adapter, and only makes pictures",
            "choose a model of a family that dit samples itself (docs/models.md)",
        )
    plan = plan_of(settings, model.defaults, getattr(model.family, "default_guidance", "cfg"))
    plan.check(model)
    size = size_of(settings, model.defaults.size)
    return Session(model, settings, plan, size, model.family.latent_shape(*size))


def load_model(settings: Settings, needs: frozenset[str] = frozenset(), load: Load | None = None):
    """The model of the settings, on a backend that offers ``needs``."""
    from dit_tools.models.load import load as usual

    def wishing(reference: str, wishes: Any) -> Model:
        return (load or usual)(reference, replace(wishes, needs=wishes.needs | needs))

    return Loader([Job(0, "", 0, settings)], wishing).model(settings)


def check_needs(model: Model, method: Any) -> None:
    """Raise UnsupportedError where the model's backend lacks what a method needs."""
    missing = method.info.needs - model.network.offers
    if missing:
        raise UnsupportedError(
            f"{method.info.flag} {method.info.name}: needs {', '.join(sorted(missing))}",
            "use --backend torch",
        )


def precise(x: Array, precision: str) -> Array:
    """``x`` in ``float32`` or ``float64``."""
    if is_torch(x):
        import torch

        return x.to(getattr(torch, precision))
    return x.astype(precision)


def widest(model: Model) -> str:
    """The precision to compute latents in: double, except on Apple's GPUs, which have none."""
    return "float32" if model.device.startswith("mps") else "float64"


def plain(x: Array) -> Array:
    """A numpy array of the same precision, on the CPU."""
    return x.detach().cpu().numpy() if is_torch(x) else x


def native(model: Model, x: Array) -> Array:
    """A numpy array as the model's kind of array, in its own precision."""
    made = model.to_array(x)
    return precise(made, str(x.dtype)) if is_torch(made) else x
