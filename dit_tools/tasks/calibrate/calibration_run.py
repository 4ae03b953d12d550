"""Sampling a model to learn about it: a cache, watched or taught, in place of the plan's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.plan import Plan
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.methods.caching import Cache
from dit_tools.models.calibration import Calibration
from dit_tools.models.model import Model
from dit_tools.sampling.sampler import Sampler

Wrap = Callable[[Any, RunState], Any]
"""``wrap(network, run)``: what is called in place of the network."""
Attach = Callable[[Sequence[Any], RunState], AbstractContextManager[None]]
Correct = Callable[[int, Prediction], Prediction]


class Probe(Cache):
    """A cache with its calibration at hand, wrapped or hooked on top."""

    def __init__(
        self,
        inner: Any,
        calibration: Calibration | None = None,
        wrap: Wrap | None = None,
        attach: Attach | None = None,
        needs: frozenset[str] | None = None,
    ):
        self._needs = inner.needs if needs is None else needs
        self._inner, self._calibration, self._wrap = inner, calibration, wrap
        self._attach = attach or inner.attach
        self.info = inner.info  # type: ignore[misc]

    @property
    def needs(self) -> frozenset[str]:
        """Those of the cache, unless others were given."""
        return self._needs

    def prepare(self, model: Any, plan: Any, run: RunState) -> None:
        """Nothing is looked for."""
        run.path, run.calibration = model.path, self._calibration

    def times(self, run: RunState) -> tuple[float, ...]:
        """Those of the cache."""
        return self._inner.times(run)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """The cache's hooks, or others in their place."""
        return self._attach(blocks, run)

    def around(self, network: Any, run: RunState) -> Any:
        """The cache's network, wrapped."""
        inner = self._inner.around(network, run)
        return self._wrap(inner, run) if self._wrap else inner


@dataclass(frozen=True)
class CalibrationRun:
    """A model, a way of sampling it, and prompts.

    ``plan.cache`` is the cache to be calibrated. ``rounds`` is how often trained caches see the
    prompts, each time from other noise. ``tell(done, total)`` hears of progress.
    """

    model: Model
    plan: Plan
    prompts: tuple[str, ...]
    size: tuple[int, int]
    rounds: int = 40
    seed: int = 0
    tell: Callable[[int, int], None] = lambda done, total: None

    def with_prompts(self, prompts: Sequence[str], seed: int) -> CalibrationRun:
        """The same with other prompts, from other noise."""
        return replace(self, prompts=tuple(prompts), seed=seed)

    def run(self, cache: Cache, correct: Correct | None = None) -> tuple[Array, RunState]:
        """Sample the prompts with a cache: final latents (B, C, h, w), and the run.

        ``correct`` is that of ``Sampler.sample``: it sees guided predictions, and may change them.
        """
        sampler = Sampler(self.model, replace(self.plan, cache=cache), self.size)
        conditions = sampler.conditions(sampler.request(self.prompts))
        noise = sampler.noise([self.seed + i for i in range(len(self.prompts))])
        x = noise.fresh()
        for step in sampler.sample(x, conditions, noise, correct=correct):
            x = step.x
        return x, sampler.state

    def plain(
        self, wrap: Wrap | None = None, attach: Attach | None = None, correct: Correct | None = None
    ) -> tuple[Array, RunState]:
        """Sample without a cache, with the network watched."""
        needs = self.plan.cache.needs if attach else None  # for what is hooked in its place
        return self.run(Probe(_none(), None, wrap, attach, needs), correct)

    def cached(self, known: Calibration | None, **changes: Any) -> tuple[Array, RunState]:
        """Sample with the cache and what is known of the model; its parameters may be changed."""
        return self.run(Probe(replace(self.plan.cache, **changes), known))

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the plan at this size."""
        shape = self.model.family.latent_shape(Size(*self.size))
        return self.plan.times(self.model, (len(self.prompts), *shape))


def _none() -> Any:
    from dit_tools.core import spec

    return spec.parse("caching", "none")


def join_conditions(branches: Sequence[str]) -> str:
    """The name of a set of branches in a calibration."""
    return "+".join(branches)
