"""Sampling in two calls, for tests that bring their own latents and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dit_tools.core.plan import Plan
from dit_tools.core.run import RunState
from dit_tools.sampling.sampler import NoiseSource, Sampler, Second

__all__ = ["Second", "sample", "start"]


def start(model: Any, plan: Plan, shape: tuple[int, ...], seeds: Sequence[int]) -> tuple[Any, NoiseSource]:
    """Starting noise (B, *shape) for ``seeds`` and the source that goes on from it."""
    noise = NoiseSource(plan.noise.stream(shape, seeds), model.to_array)
    return noise.fresh(), noise


def sample(
    model: Any,
    conditions: Any,
    x: Any,
    plan: Plan,
    noise: Any = None,
    times: tuple[float, ...] | None = None,
    run: RunState | None = None,
    **more: Any,
) -> Iterator[Any]:
    """``Sampler.sample``; ``run``: the state whose counters are read afterwards."""
    sampler = Sampler(model, plan, state=run or RunState((1.0, 0.0), 0))
    return sampler.sample(x, conditions, noise, times, **more)
