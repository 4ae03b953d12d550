"""The one way to run a model: conditions, noise, hooks, denoisers and the sampling loop.

Everything that asks a network during sampling, editing, inverting, streaming, calibrating and
measuring goes through a ``Sampler``, so a method of ``Plan`` works wherever the loop allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, all_finite, concat, is_torch, to_precision
from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.plan import Plan, model_info
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.core.steps import Inverted, Step
from dit_tools.methods.composition import Expert, Stage
from dit_tools.methods.guidance import Guidance
from dit_tools.methods.highres import Correct
from dit_tools.methods.inversion import Inversion
from dit_tools.methods.token_reduction import Watch
from dit_tools.models.family import ConditionRequest
from dit_tools.models.model import Model
from dit_tools.sampling.denoiser import Conditions, Denoiser

Change = Callable[[dict[str, dict[str, Array]]], dict[str, dict[str, Array]]]
"""From conditions per branch to others."""


class NoiseSource:
    """A seeded stream of noise (B, C, h, w), as the model's own kind of array.

    The first draw is the starting noise of a run. ``generators`` are torch's, one for every seed,
    for schedulers of diffusers; None for other kinds of noise.
    """

    def __init__(self, stream: Any, to_array: Callable[[Any], Array]):
        self._stream, self._to_array = stream, to_array
        self.generators = getattr(stream, "generators", None)

    def fresh(self) -> Array:
        """The next draw."""
        return self._to_array(self._stream.fresh())


@dataclass(frozen=True)
class Second:
    """The other model of a combined run, and its conditions for the branches of its guidance."""

    model: Model
    conditions: Conditions


@dataclass
class _Hooks:
    """What is attached to a network: how it is called now, and the watch over its tokens."""

    network: Any
    watch: Watch
    askers: int = 0


@dataclass
class Sampler:
    """A model with a plan, for images of one size.

    ``size``: height and width in pixels (default: the model's own). ``seed`` is that of the noise
    where none is given; ``negative_prompt``, ``embedded_guidance`` and ``max_tokens`` are what the
    text encoder is told besides prompts. ``state`` is the state of the current run; its counters go
    on from run to run.
    """

    model: Model
    plan: Plan
    size: tuple[int, int] = (0, 0)
    seed: int = 0
    negative_prompt: str = ""
    embedded_guidance: float | None = None
    max_tokens: int | None = None
    state: RunState = field(default_factory=lambda: RunState((1.0, 0.0), 0))
    _hooks: _Hooks | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size == (0, 0):
            self.size = (self.model.defaults.size, self.model.defaults.size)

    # what a run starts from -----------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Latent shape (C, h, w). Raises UsageError for a size that the model cannot make."""
        return self.model.family.latent_shape(Size(*self.size))

    @property
    def calls(self) -> int:
        """Network calls so far."""
        return self.state.count["network calls"]

    @property
    def precision(self) -> str:
        """The precision to invert latents in: double, except on Apple's GPUs, which have none."""
        return "float32" if self.model.device.startswith("mps") else "float64"

    def times(self) -> tuple[float, ...]:
        """The times of the plan, as its cache has them. Raises what the cache's ``prepare`` raises."""
        times = self.plan.times(self.model, (1, *self.shape))
        if self.plan.cache.info.name == "none":
            return times
        state = RunState(times, self.plan.solver.calls(len(times) - 1))
        self.plan.cache.prepare(self.model, self.plan, state)
        return self.plan.cache.times(state)

    def request(
        self, prompts: Sequence[str], negatives: Sequence[str] | str | None = None, guidance: Guidance | None = None
    ) -> ConditionRequest:
        """What to ask the text encoder for, one entry per image; by default the plan's guidance."""
        negatives = self.negative_prompt if negatives is None else negatives
        return ConditionRequest(
            tuple(prompts),
            (negatives,) * len(prompts) if isinstance(negatives, str) else tuple(negatives),
            Size(*self.size),
            branches=tuple(branch.name for branch in (guidance or self.plan.guidance).branches),
            embedded_guidance=self.embedded_guidance,
            max_tokens=self.max_tokens,
        )

    def conditions(self, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Branch name -> arrays for the network; a second text of one model is the branch ``second``."""
        made = self.model.encode(replace(request, second=None))
        if request.second is not None and self.model.second is None:
            first = request.branches[0]  # the branch with the prompt
            other = self.model.encode(replace(request, texts=request.second, branches=(first,), second=None))
            made = {**made, "second": other[first]}
        return made

    def noise(self, seeds: Sequence[int] | None = None) -> NoiseSource:
        """Noise of the plan's kind, one stream for every seed (default: the sampler's own seed)."""
        stream = self.plan.noise.stream(self.shape, [self.seed] if seeds is None else seeds)
        return NoiseSource(stream, self.model.to_array)

    def bare(self) -> Sampler:
        """The same sampler and counters, with nothing attached to the network."""
        plan = self.plan
        kept = {name: getattr(plan, name) for name in ("schedule", "solver", "guidance", "noise")}
        return replace(self, plan=Plan(plan.steps, **kept))

    # asking the network ---------------------------------------------------------------------------

    @contextmanager
    def denoiser(self, conditions: Conditions, guidance: Guidance | None = None) -> Iterator[Denoiser]:
        """A guided denoiser, in the precision of the latents that it is asked with.

        The methods of the plan are attached to the network as long as a denoiser of this sampler is
        open: highres, attention, tokens, cache, the first of them innermost. Several denoisers that
        are open together take turns; each has its own count of calls and its own memory.
        """
        with self._hooked(None, (1, *self.shape)) as hooks:
            yield self._denoiser(hooks, conditions, guidance or self.plan.guidance, precise=True)

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """The network with the plan's methods on it, for who makes its inputs and answers guides itself."""
        with self._hooked(None, (1, *self.shape)) as hooks:
            yield hooks.network

    def prompted(
        self,
        prompts: Sequence[str],
        scale: float | None = None,
        negative: str | None = None,
        change: Change | None = None,
    ) -> AbstractContextManager[Denoiser]:
        """A denoiser of ``len(prompts)`` rows. ``scale`` replaces the plan's guidance by CFG's.

        ``change`` takes the conditions of the prompts and gives those to use, of as many rows as
        the latents will have.
        """
        guidance = self.plan.guidance if scale is None else spec.parse("guidance", f"cfg:scale={scale!r}")
        conditions = self.conditions(self.request(prompts, negative, guidance))
        return self.denoiser(change(conditions) if change else conditions, guidance)

    def sample(
        self,
        x: Array,
        conditions: Conditions,
        noise: Any = None,
        times: tuple[float, ...] | None = None,
        correct: Correct | None = None,
        second: Second | None = None,
    ) -> Iterator[Step]:
        """Yields a ``Step`` after every step; the last one's ``x`` is the result.

        ``x``: latents at ``times[0]`` (pure noise for the plan's own times), (B, C, [F,] H, W).
        ``conditions``: branch name -> arrays, for every branch of the plan's guidance.
        ``correct(call, prediction)`` may change every guided prediction before the solver sees it.
        ``second``: another model on the same latents, for a combination that takes one.
        Raises ModelError when the network gives NaN, UnsupportedError when the network lacks what a
        method needs.
        """
        model, plan, state = self.model, self.plan, self.state
        if times is not None and plan.solver.own_times and times != plan.times(model, x.shape):
            raise UnsupportedError(
                f"--solver {plan.solver.info.name}: it keeps its own times and cannot start midway",
                "use --solver euler, heun, ddim, dpmpp-2m or unipc",
            )
        solver = plan.solver.bind(model_info(model, x.shape))
        with ExitStack() as stack:
            hooks = stack.enter_context(self._hooked(times, x.shape))
            experts: list[Expert] = [self._denoiser(hooks, conditions, plan.guidance)]
            if second is not None:
                experts.append(self._second(stack, second))
            if correct is not None:
                experts[0] = _Corrected(experts[0], correct, state)
            stage = Stage(tuple(experts), solver, plan.guidance, state.times, noise)
            yield from plan.combine.steps(stage, x * 1.0)  # the caller's latents stay as they are

    def _denoiser(self, hooks: _Hooks, conditions: Conditions, guidance: Guidance, precise: bool = False) -> Denoiser:
        hooks.askers += 1
        return Denoiser(
            self.model.family,
            hooks.network,
            conditions,
            guidance.begin(self.state),
            self.state,
            hooks.watch,
            asker=hooks.askers - 1,
            precise=precise,
        )

    def _second(self, stack: ExitStack, second: Second) -> Denoiser:
        """The denoiser of another model, with hooks and a state of its own and shared counters."""
        mine, guidance = self.state, self.plan.combine.second(self.plan.guidance)
        state = RunState(mine.times, mine.calls_expected, mine.grid, count=mine.count, scorer=mine.scorer)
        hooks = _attach(stack, second.model, self.plan, state)
        guide = guidance.begin(state)
        return Denoiser(second.model.family, hooks.network, second.conditions, guide, state, hooks.watch)

    @contextmanager
    def _hooked(self, times: tuple[float, ...] | None, latent_shape: Sequence[int]) -> Iterator[_Hooks]:
        """The plan's methods on the network: attached by whoever comes first, until that one leaves."""
        if self._hooks is not None:
            yield self._hooks
            return
        self._begin(times or self.plan.times(self.model, latent_shape), latent_shape)
        with ExitStack() as stack:
            self._hooks = _attach(stack, self.model, self.plan, self.state)
            try:
                yield self._hooks
            finally:
                self._hooks = None

    def _begin(self, times: tuple[float, ...], latent_shape: Sequence[int]) -> None:
        """A fresh state but for counters and scorer. Raises what checks and ``prepare`` raise."""
        model, plan, state = self.model, self.plan, self.state
        plan.check(model)
        fresh = RunState(times, plan.solver.calls(len(times) - 1), grid(model, latent_shape))
        fresh.count, fresh.scorer = state.count, state.scorer
        vars(state).update(vars(fresh))  # methods and callers hold this very object
        plan.cache.prepare(model, plan, state)
        state.times = plan.cache.times(state)

    # clean latents ---------------------------------------------------------------------------------

    def encode(self, pixels: Array) -> Array:
        """Latents (1, C, h, w) of pixels as ``media.crop.to_model`` gives them, in ``precision``.

        Raises ModelError when the autoencoder gives values that are not numbers.
        """
        x0 = self.model.to_array(self.model.codec.encode(pixels))
        if not all_finite(x0):
            message = "the autoencoder gave values that are not numbers"
            raise ModelError(message, "use --dtype float32, or check the model")
        return to_precision(x0, self.precision)

    def invert(
        self, method: Inversion, x0: Array, times: Sequence[float], prompt: str, scale: float | None = None
    ) -> Inverted:
        """Where ``x0`` comes from under a prompt; ``scale`` replaces the plan's guidance by CFG's."""
        with self.prompted([prompt], scale) as denoise:
            return method.invert(denoise, x0, times, self.noise())

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
        with self.prompted(prompts, scale) as denoise:
            for step in method.back(found.state).steps(denoise, x, times, None):
                x = step.x
        return x[-1:]

    def native(self, x: Array) -> Array:
        """A numpy array as the model's kind of array, in its own precision."""
        made = self.model.to_array(x)
        return to_precision(made, str(x.dtype)) if is_torch(made) else x

    def restored(self, arrays: Mapping[str, Array]) -> Inverted:
        """Stored arrays (``noise`` and the state of an inversion) as the model's own, in ``precision``."""
        wide = {name: self.native(array.astype(self.precision)) for name, array in arrays.items()}
        return Inverted(wide.pop("noise"), wide)


class _Corrected:
    """A denoiser whose guided predictions are changed before anybody sees them."""

    def __init__(self, denoise: Expert, correct: Correct, state: RunState):
        self._denoise, self._correct, self._state = denoise, correct, state
        self.ask = denoise.ask

    def __call__(self, x: Array, t: float) -> Prediction:
        guided = self._denoise(x, t)  # counts the call
        return self._correct(self._state.call, guided)


def grid(model: Model, latent_shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of image tokens of latents (..., h, w)."""
    patch = getattr(model.family, "patch", 1)
    return latent_shape[-2] // patch, latent_shape[-1] // patch


def _attach(stack: ExitStack, model: Model, plan: Plan, state: RunState) -> _Hooks:
    """Attach what hooks the network until the stack is left, the innermost first."""
    network: Any = model.network
    if plan.highres.info.name != "none":
        state.native = grid(model, model.family.latent_shape(Size.square(model.defaults.size)))
    stack.enter_context(plan.highres.attach(network, state))
    stack.enter_context(plan.attention.attach(_blocks(model, plan.attention), state))
    watch = stack.enter_context(plan.tokens.attach(_blocks(model, plan.tokens), state))
    stack.enter_context(plan.cache.attach(_blocks(model, plan.cache), state))
    return _Hooks(plan.cache.around(network, state), watch)


def _blocks(model: Model, method: Any) -> Sequence[Any]:
    needs = getattr(method, "needs", method.info.needs)
    return model.network.blocks() if {"blocks", "stack"} & needs else ()
