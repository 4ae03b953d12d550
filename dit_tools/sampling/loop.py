"""The one sampling loop: everything that makes pictures from latents goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.plan import Plan, target
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import ImageTextScorer, RunState
from dit_tools.core.size import Size
from dit_tools.methods.composition import Stage
from dit_tools.sampling.denoiser import Condition, Denoiser


class _OnDevice:
    """A noise stream whose arrays arrive as the model's own kind of array."""

    def __init__(self, stream: Any, to_array: Any):
        self._stream, self._to_array = stream, to_array
        self.generators = getattr(stream, "generators", None)  # torch's, for diffusers schedulers

    def fresh(self) -> Array:
        return self._to_array(self._stream.fresh())


def start(model: Any, plan: Plan, shape: tuple[int, ...], seeds: Sequence[int]) -> tuple[Array, Any]:
    """Starting noise (B, *shape) for ``seeds`` and the stream that goes on from it."""
    stream = _OnDevice(plan.noise.stream(shape, seeds), model.to_array)
    return stream.fresh(), stream


@dataclass(frozen=True)
class Second:
    """The other model of a combined run, and its conditions for the branches of its guidance."""

    model: Any
    conditions: Mapping[str, Condition]


def sample(
    model: Any,
    conditions: Mapping[str, Condition],
    x: Array,
    plan: Plan,
    noise: Any = None,
    times: tuple[float, ...] | None = None,
    run: RunState | None = None,
    correct: Callable[[int, Prediction], Prediction] | None = None,
    second: Second | None = None,
) -> Iterator[Any]:
    """Sample: yields a ``solvers._base.Step`` after every step; the last one's ``x`` is the result.

    ``x``: latents at ``times[0]`` (pure noise for the plan's own times), (B, C, [F,] H, W).
    ``conditions``: branch name -> Condition, for every branch of the plan's guidance.
    ``run``: pass one to read the counters afterwards. ``correct(call, prediction)`` may change
    every guided prediction before the solver sees it. ``second``: another model on the same
    latents, for a combination that takes one.
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
    run = run or RunState(times, plan.solver.calls(len(times) - 1))
    run.grid = grid(model, x.shape)
    plan.cache.prepare(model, plan, run)
    times = run.times = plan.cache.times(run)
    with ExitStack() as attached:
        experts: list[Any] = [_expert(attached, model, conditions, plan, plan.guidance, run)]
        if second is not None:
            own = RunState(run.times, run.calls_expected, run.grid, count=run.count, scorer=run.scorer)
            guidance = plan.combine.second(plan.guidance)
            made = _expert(attached, second.model, second.conditions, plan, guidance, own)
            experts.append(made)
        if correct is not None:
            experts[0] = _corrected(experts[0], correct, run)
        stage = Stage(tuple(experts), solver, plan.guidance, run.times, noise)
        yield from plan.combine.steps(stage, x * 1.0)  # the caller's latents stay as they are


def _expert(
    attached: ExitStack, model: Any, conditions: Mapping[str, Condition], plan: Plan, guidance: Any, run: RunState
) -> Denoiser:
    """A guided denoiser whose hooks are attached until the stack is left."""
    watch = _attach(attached, model, plan, run)
    network = plan.cache.around(model.network, run)
    return Denoiser(model.family, network, conditions, guidance.begin(run), run, watch)


def grid(model: Any, latent_shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of image tokens of latents (..., h, w)."""
    patch = getattr(model.family, "patch", 1)
    return latent_shape[-2] // patch, latent_shape[-1] // patch


def _corrected(denoise: Any, correct: Callable[[int, Prediction], Prediction], run: RunState) -> Any:
    def corrected(x: Array, t: float) -> Prediction:
        guided = denoise(x, t)  # counts the call
        return correct(run.call, guided)

    return corrected


def _attach(attached: ExitStack, model: Any, plan: Plan, run: RunState) -> Any:
    """Attach what hooks the network, the innermost first; gives the watch over its tokens."""
    if plan.highres.info.name != "none":
        side = model.defaults.size
        run.native = grid(model, model.family.latent_shape(Size.square(side)))
    attached.enter_context(plan.highres.attach(model.network, run))
    attached.enter_context(plan.attention.attach(_blocks(model, plan.attention), run))
    watch = attached.enter_context(plan.tokens.attach(_blocks(model, plan.tokens), run))
    attached.enter_context(plan.cache.attach(_blocks(model, plan.cache), run))
    return watch


def _blocks(model: Any, method: Any) -> Sequence[Any]:
    needs = getattr(method, "needs", method.info.needs)
    return model.network.blocks() if {"blocks", "stack"} & needs else ()


@dataclass
class Scene:
    """One batch of pictures that is about to be made, for a method of ``--highres``.

    ``conditions(size)`` gives the conditions for height and width in pixels, ``second(size)`` those
    of another model with it; ``run`` yields steps whose numbers go on from run to run.
    """

    model: Any
    plan: Plan
    conditions: Callable[[tuple[int, int]], Mapping[str, Condition]]
    size: tuple[int, int]
    seeds: Sequence[int]
    count: int = 0  # steps made so far
    second: Callable[[tuple[int, int]], Second] | None = None
    scorer: ImageTextScorer | None = None  # for guidance that looks at images

    @property
    def native(self) -> tuple[int, int]:
        """Height and width that the model was made for."""
        return self.model.defaults.size, self.model.defaults.size

    @property
    def multiple(self) -> int:
        """What sides in pixels are multiples of."""
        return self.model.family.vae_scale * self.model.family.patch

    def run(
        self,
        size: tuple[int, int],
        picture: Array | None = None,
        share: float = 1.0,
        correct: Callable[[int, Prediction], Prediction] | None = None,
    ) -> Iterator[Any]:
        """Sample at a size in pixels: from noise, or from latents ``picture``.

        Those are noised to the time from which the last ``share`` of the steps go on.
        """
        shape = self.model.family.latent_shape(Size(*size))
        x, noise = start(self.model, self.plan, shape, self.seeds)
        times = None
        if picture is not None:
            times = self.plan.times(self.model, x.shape)
            times = times[len(times) - 1 - max(round(share * (len(times) - 1)), 1) :]
            path = self.model.path
            x = path.alpha(times[0]) * picture + path.sigma(times[0]) * x
        before, given = self.count, self.conditions(size)
        if picture is None:
            x = self.plan.noise.terminal(self.model, given, x)
        second = self.second(size) if self.second else None
        run_times = times or self.plan.times(self.model, x.shape)
        run = RunState(run_times, self.plan.solver.calls(len(run_times) - 1), scorer=self.scorer)
        for step in sample(self.model, given, x, self.plan, noise, times, run, correct, second):
            self.count += 1
            yield replace(step, index=before + step.index, total=before + step.total)

    def decode(self, x: Array) -> Array:
        """Latents to pixels (B, C, H, W) in [0, 1], numpy."""
        return self.model.codec.decode(x)

    def encode(self, pixels: Array) -> Array:
        """Pixels (B, C, H, W) in [0, 1], numpy, to latents."""
        return self.model.to_array(self.model.codec.encode(pixels))
