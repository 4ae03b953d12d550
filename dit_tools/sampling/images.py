"""Batches of images from prompts: one sampling run, or as many as a method of ``--highres`` makes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dit_tools.core.arrays import Array
from dit_tools.core.size import Size
from dit_tools.core.steps import Step
from dit_tools.methods.highres import Correct
from dit_tools.models.family import ConditionRequest
from dit_tools.sampling.denoiser import Conditions
from dit_tools.sampling.sampler import Sampler, Second

Sides = tuple[int, int]
"""Height and width in pixels."""


def image_steps(sampler: Sampler, request: ConditionRequest, seeds: Sequence[int]) -> Iterator[Step]:
    """The steps of a batch; the last one's ``x`` holds the clean latents (B, C, h, w).

    Conditions are encoded once, and again for another size where the network is told its size.
    """
    sizes = ImageBatch(sampler, _encoder(sampler, request), seeds, second=_second(sampler, request))
    yield from sampler.plan.highres.steps(sizes)


@dataclass
class ImageBatch:
    """One batch of images that is about to be made, for a method of ``--highres``.

    ``conditions(size)`` gives the conditions for height and width in pixels, ``second(size)`` those
    of another model with it; ``run`` yields steps whose numbers go on from run to run.
    """

    sampler: Sampler
    conditions: Callable[[Sides], Conditions]
    seeds: Sequence[int]
    count: int = 0  # steps made so far
    second: Callable[[Sides], Second] | None = None

    @property
    def size(self) -> Sides:
        """Height and width that were asked for."""
        return self.sampler.size

    @property
    def native(self) -> Sides:
        """Height and width that the model was made for."""
        return self.sampler.model.defaults.size, self.sampler.model.defaults.size

    @property
    def multiple(self) -> int:
        """What sides in pixels are multiples of."""
        return self.sampler.model.family.vae_scale * self.sampler.model.family.patch

    def run(
        self, size: Sides, picture: Array | None = None, share: float = 1.0, correct: Correct | None = None
    ) -> Iterator[Step]:
        """Sample at a size in pixels: from noise, or from latents ``picture``.

        Those are noised to the time from which the last ``share`` of the steps go on.
        """
        sampler = replace(self.sampler, size=size)
        model, plan = sampler.model, sampler.plan
        noise = sampler.noise(self.seeds)
        x, times = noise.fresh(), None
        if picture is not None:
            times = plan.times(model, x.shape)
            times = times[len(times) - 1 - max(round(share * (len(times) - 1)), 1) :]
            x = model.path.alpha(times[0]) * picture + model.path.sigma(times[0]) * x
        before, given = self.count, self.conditions(size)
        if picture is None:
            x = plan.noise.terminal(model, given, x)
        second = self.second(size) if self.second else None
        for step in sampler.sample(x, given, noise, times, correct, second):
            self.count += 1
            yield replace(step, index=before + step.index, total=before + step.total)

    def decode(self, x: Array) -> Array:
        """Latents to pixels (B, C, H, W) in [0, 1], numpy."""
        return self.sampler.model.codec.decode(x)

    def encode(self, pixels: Array) -> Array:
        """Pixels (B, C, H, W) in [0, 1], numpy, to latents."""
        return self.sampler.model.to_array(self.sampler.model.codec.encode(pixels))


def _encoder(sampler: Sampler, request: ConditionRequest) -> Callable[[Sides], Conditions]:
    @functools.cache
    def encode(size: Sides) -> Conditions:
        return sampler.conditions(replace(request, size=Size(*size)))

    told = getattr(sampler.model.family, "micro_conditions", False)
    return lambda size: encode(size if told else request.size.sides)


def _second(sampler: Sampler, request: ConditionRequest) -> Callable[[Sides], Second] | None:
    """The other model of a combined run, with conditions by size; None for a model alone."""
    other, plan = sampler.model.second, sampler.plan
    if other is None or not plan.combine.takes:
        return None
    branches = tuple(branch.name for branch in plan.combine.second(plan.guidance).branches)
    asked = replace(request, texts=request.second or request.texts, branches=branches, second=None)
    encode = _encoder(Sampler(other, plan), asked)
    return lambda size: Second(other, encode(size))
