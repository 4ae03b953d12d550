"""The one sampling loop: everything that makes pictures from latents goes through here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.plan import Plan, target
from dit_tools.core.run import Run
from dit_tools.denoiser import Condition, Denoiser


class _OnDevice:
    """A noise stream whose arrays arrive as the model's own kind of array."""

    def __init__(self, stream: Any, to_array: Any):
        self._stream, self._to_array = stream, to_array
        self.generators = getattr(stream, "generators", None)  # torch's, for diffusers schedulers

    def fresh(self) -> Array:
        return self._to_array(self._stream.fresh())


def start(
    model: Any, plan: Plan, shape: tuple[int, ...], seeds: Sequence[int]
) -> tuple[Array, Any]:
    """Starting noise (B, *shape) for ``seeds`` and the stream that goes on from it."""
    stream = _OnDevice(plan.noise.stream(shape, seeds), model.to_array)
    return stream.fresh(), stream


def sample(
    model: Any,
    conditions: Mapping[str, Condition],
    x: Array,
    plan: Plan,
    noise: Any = None,
    times: tuple[float, ...] | None = None,
    run: Run | None = None,
) -> Iterator[Any]:
    """Sample: yields a ``solvers._base.Step`` after every step; the last one's ``x`` is the result.

    ``x``: latents at ``times[0]`` (pure noise for the plan's own times), (B, C, [F,] H, W).
    ``conditions``: branch name -> Condition, for every branch of the plan's guidance.
    ``run``: pass one to read the counters afterwards.
    Raises ModelError when the network gives NaN, UnsupportedError when the network lacks what a
    method needs.
    """
    plan.check(model)
    if times is None:
        times = plan.times(model, x.shape)
    elif plan.solver.own_times and times != plan.times(model, x.shape):
        raise UnsupportedError(
            f"--solver {plan.solver.info.name}: it keeps its own times and cannot start midway",
            "use --solver euler, heun, ddim, dpmpp-2m or unipc",
        )
    solver = plan.solver.bind(target(model, x.shape))
    run = run or Run(times, plan.solver.calls(len(times) - 1))
    blocks = model.network.blocks() if "blocks" in plan.cache.info.needs else ()
    with plan.cache.attach(blocks, run):
        network = plan.cache.around(model.network, run)
        denoise = Denoiser(model.family, network, conditions, plan.guidance.begin(), run)
        x = x * 1.0  # the caller's latents stay as they are
        yield from solver.steps(denoise, x, times, noise)
