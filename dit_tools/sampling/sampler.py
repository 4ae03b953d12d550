"""A loaded model that is asked with several prompts over one timestep schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, all_finite, concat, is_torch, precise
from dit_tools.core.errors import ModelError
from dit_tools.core.paths import Path
from dit_tools.core.plan import Plan
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.core.steps import Inverted
from dit_tools.methods.inversion import Inversion
from dit_tools.models.family import ConditionRequest
from dit_tools.models.model import Model
from dit_tools.sampling.denoiser import Denoiser
from dit_tools.sampling.loop import start

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
class Sampler:
    """``model`` with a plan for images of one size; counts its network calls.

    ``shape``: latent shape (C, h, w); ``size``: height and width in pixels; ``seed``: that of the
    noise stream; the other fields are what the text encoder is told besides prompts.
    """

    model: Model
    plan: Plan
    size: tuple[int, int]
    shape: tuple[int, ...]
    seed: int = 0
    negative_prompt: str = ""
    embedded_guidance: float | None = None
    max_tokens: int | None = None
    run: RunState = field(default_factory=lambda: RunState((1.0, 0.0), 0))

    @property
    def calls(self) -> int:
        """Network calls so far."""
        return self.run.count["network calls"]

    @property
    def precision(self) -> str:
        """The precision to compute latents in: double, except on Apple's GPUs, which have none."""
        return "float32" if self.model.device.startswith("mps") else "float64"

    def times(self) -> tuple[float, ...]:
        """The times of the plan."""
        return self.plan.times(self.model, (1, *self.shape))

    def denoiser(
        self,
        prompts: Sequence[str],
        scale: float | None = None,
        negative: str | None = None,
        change: Change | None = None,
    ) -> Precise:
        """A denoiser of ``len(prompts)`` rows. ``scale`` replaces the plan's guidance by CFG's.

        ``change`` takes the conditions of the prompts and gives those to use, of as many rows as
        the latents will have.
        """
        guidance = self.plan.guidance
        if scale is not None:
            guidance = spec.parse("guidance", f"cfg:scale={scale!r}")
        negative = self.negative_prompt if negative is None else negative
        conditions = self.model.encode(
            ConditionRequest(
                tuple(prompts),
                (negative,) * len(prompts),
                Size(*self.size),
                branches=tuple(branch.name for branch in guidance.branches),
                embedded_guidance=self.embedded_guidance,
                max_tokens=self.max_tokens,
            )
        )
        conditions = change(conditions) if change else conditions
        model = self.model
        guide = guidance.begin(self.run)
        denoise = Denoiser(model.family, model.network, conditions, guide, self.run)
        return Precise(denoise, model.path)

    def noise(self) -> Any:
        """The noise stream of the seed, from its first draw on."""
        return _Repeated(*start(self.model, self.plan, self.shape, [self.seed]))

    def encode(self, pixels: Array) -> Array:
        """Latents (1, C, h, w) of pixels as ``media.crop.to_model`` gives them, in ``precision``.

        Raises ModelError when the autoencoder gives values that are not numbers.
        """
        x0 = self.model.to_array(self.model.codec.encode(pixels))
        if not all_finite(x0):
            message = "the autoencoder gave values that are not numbers"
            raise ModelError(message, "use --dtype float32, or check the model")
        return precise(x0, self.precision)

    def invert(
        self, method: Inversion, x0: Array, times: Sequence[float], prompt: str, scale: float | None = None
    ) -> Inverted:
        """Where ``x0`` comes from under a prompt; ``scale`` replaces the plan's guidance by CFG's."""
        return method.invert(self.denoiser([prompt], scale), x0, times, self.noise())

    def reconstruct(
        self,
        method: Inversion,
        found: Inverted,
        times: Sequence[float],
        prompts: Sequence[str],
        scale: float | None = None,
    ) -> Array:
        """Clean latents (1, C, h, w) of the last of ``prompts``, the first being the source's."""
        x = concat([found.noise] * len(prompts)) if len(prompts) > 1 else found.noise
        denoise = self.denoiser(prompts, scale)
        for step in method.back(found.state).steps(denoise, x, times, None):
            x = step.x
        return x[-1:]

    def native(self, x: Array) -> Array:
        """A numpy array as the model's kind of array, in its own precision."""
        made = self.model.to_array(x)
        return precise(made, str(x.dtype)) if is_torch(made) else x

    def restored(self, arrays: Mapping[str, Array]) -> Inverted:
        """Stored arrays (``noise`` and the state of an inversion) as the model's own, in ``precision``."""
        wide = {name: self.native(array.astype(self.precision)) for name, array in arrays.items()}
        return Inverted(wide.pop("noise"), wide)


class _Repeated:
    """A stream whose first draw has been taken: it is given once more."""

    def __init__(self, first: Array, rest: Any):
        self._first, self._rest = first, rest
        self.generators = getattr(rest, "generators", None)

    def fresh(self) -> Array:
        if self._first is None:
            return self._rest.fresh()
        first, self._first = self._first, None
        return first
