"""Any scheduler of the diffusers library as a solver."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array, to_numpy
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, nearest, param
from dit_tools.methods.solvers import Denoise, Solver, Step

DEFAULTS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
"""What a config that does not say it means; some scheduler classes have other defaults."""


VARIANCE_PRESERVING = (
    *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE"),
    *("DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete"),
    *("KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep"),
)
FLOW = (
    *("DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "FlowMatchEulerDiscrete"),
    *("FlowMatchHeunDiscrete", "FlowMatchLCM", "SASolver", "UniPCMultistep"),
)
"""Schedulers of each noise process that reach clean data, which the tests measure for all of them.
Others of diffusers are for inversion, tokens, other noise processes or one network."""
STOPS_ABOVE_ZERO = ("DEISMultistep", "SASolver", "TCD")
"""Their last step goes to the lowest noise level, or nowhere, and would leave that noise in the
image. Its place takes the prediction of the clean image, which is a first-order step to zero."""


@method(needs={"torch"})
class Diffusers(Solver):
    """A scheduler class of diffusers, configured from the model's own scheduler.

    It keeps its own times, so that only the number of steps is taken from the schedule, and its
    own noise, drawn from one generator per image. Not for schedulers whose noise process
    differs from the model's: a flow needs a FlowMatch scheduler or one with use_flow_sigmas.
    Differs from diffusers: DEIS, SASolver and TCD end at clean data, where their own last step
    leaves noise; PNDM does, unless the model's config says otherwise.
    """

    own_times = True

    class_: str | None = param(None, "class name of a scheduler; none = the model's own")

    def bind(self, target: ModelInfo) -> Solver:
        """The solver with the model's scheduler config at hand."""
        return _Bound(self.class_ or str(target.scheduler.get("_class_name")), target)

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """Only through ``bind``, which knows the model's scheduler."""
        raise TypeError("bind(target) first")


@dataclass(frozen=True)
class _Bound(Solver):
    """The solver of one run: ``name`` is the scheduler's class."""

    name: str
    target: ModelInfo

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """As many network calls as the scheduler has timesteps.

        Raises UsageError for a name that is not a scheduler or does not suit the model.
        """
        scheduler = make_scheduler(self.name, self.target)
        count = len(times) - 1
        try:
            scheduler.set_timesteps(count, device=x.device, **_timing(scheduler, count, self.target))
        except (ValueError, IndexError) as error:
            reason = str(error).splitlines()[0][:100]
            raise UsageError(f"--solver diffusers: {self.name} at {count} steps: {reason}", "use more steps") from None
        marks, extra = scheduler.timesteps, _randomness(scheduler, x, noise)
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)  # flow schedulers have none
        scaled = _scaled(scheduler, x, marks[0])
        for i, mark in enumerate(marks):
            p = denoise(scaled, self._time(mark))
            x = scheduler.step(_output(p, scheduler), mark, x, return_dict=False, **extra)[0]
            last = i + 1 == len(marks)
            if last and self.name.removesuffix("Scheduler") in STOPS_ABOVE_ZERO:
                x = p.x0.to(x.dtype)
            scaled = x if last else _scaled(scheduler, x, marks[i + 1])
            yield Step(i, len(marks), 0.0 if last else self._time(marks[i + 1]), scaled, p)

    def _time(self, mark: Any) -> float:
        path = self.target.path
        if isinstance(path, Flow):
            return float(mark) / self.target.scheduler.get("num_train_timesteps", 1000)
        return path.at_index(float(mark))  # type: ignore[attr-defined]


def make_scheduler(name: str, target: ModelInfo) -> Any:
    """A scheduler object of that class with what it understands of the model's config.

    Raises UsageError for a name that is not a scheduler or does not suit the model.
    """
    cls = _find(name)
    _check_kind(name, isinstance(target.path, Flow))
    known = inspect.signature(cls.__init__).parameters
    given = DEFAULTS | dict(target.scheduler)
    config = {key: value for key, value in given.items() if key in known}
    if "set_alpha_to_one" in known:  # PNDM alone has another default
        config.setdefault("set_alpha_to_one", True)
    if str(config.get("variance_type") or "").startswith("learned"):
        del config["variance_type"]  # the denoiser has dropped the learned variance
    if isinstance(target.path, Flow):
        config |= _flow_options(name, known, target.scheduler)
    return cls(**config)


def _find(name: str) -> Any:
    from diffusers import SchedulerMixin, schedulers

    names = [word for word in dir(schedulers) if word.endswith("Scheduler")]
    cls = getattr(schedulers, name) if name in names else None
    if isinstance(cls, type) and issubclass(cls, SchedulerMixin):
        return cls
    if cls is not None:  # diffusers puts an empty class where a package is missing
        packages = ", ".join(set(getattr(cls, "_backends", ())) - {"torch"})
        raise UnsupportedError(f"--solver diffusers: {name} needs {packages}", f"pip install {packages}")
    raise UsageError(f"--solver diffusers: no scheduler class {name!r}", nearest(name, names))


def _check_kind(name: str, flow: bool) -> None:
    """Raise UsageError for a scheduler that does not take the model's noise to clean data."""
    plain = name.removesuffix("Scheduler")
    if plain in (FLOW if flow else VARIANCE_PRESERVING):
        return
    if flow and plain in VARIANCE_PRESERVING:
        reason, hint = "cannot sample a flow model", "FlowMatchHeunDiscreteScheduler or DPMSolverMultistepScheduler"
    elif not flow and plain in FLOW:
        reason, hint = "is for flow models and this is none", "for example EulerDiscreteScheduler"
    else:
        reason = "does not take this model's noise to a clean image"
        hint = f"one of {', '.join(FLOW if flow else VARIANCE_PRESERVING)} (each with Scheduler behind it)"
    raise UsageError(f"--solver diffusers: {name} {reason}", f"use {hint}")


def _flow_options(name: str, known: Mapping[str, Any], c: Mapping[str, Any]) -> dict[str, Any]:
    shift = c.get("flow_shift") or c.get("shift", 1.0)
    if name.startswith("FlowMatch"):
        return {"shift": shift} if "shift" in known else {}
    kind = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return kind | ({"flow_shift": shift} if "flow_shift" in known else {})


def _timing(scheduler: Any, steps: int, target: ModelInfo) -> dict[str, Any]:
    known = inspect.signature(scheduler.set_timesteps).parameters
    extra: dict[str, Any] = {}
    if "mu" in known and scheduler.config.get("use_dynamic_shifting"):
        extra["mu"] = target.mu
    if "sigmas" in known and target.passes_sigmas and isinstance(target.path, Flow):
        extra["sigmas"] = [1 - i / steps for i in range(steps)]
    return extra


def _scaled(scheduler: Any, x: Array, mark: Any) -> Array:
    """Latents as the network wants them: some schedulers keep theirs in another scale."""
    scale = getattr(scheduler, "scale_model_input", None)
    return scale(x, mark) if scale else x


def _randomness(scheduler: Any, x: Array, noise: Any) -> dict[str, Any]:
    """One generator per image: the noise stream's own, or seeded by what it draws."""
    import torch

    if noise is None or "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    own = getattr(noise, "generators", None)
    if own is None:
        draws = to_numpy(noise.fresh()).reshape(x.shape[0], -1)[:, 0]
        own = [torch.Generator().manual_seed(int(abs(draw) * 2**48)) for draw in draws.tolist()]
    return {"generator": own}


def _output(p: Prediction, scheduler: Any) -> Array:
    """The prediction in the form that the scheduler wants."""
    flow = type(scheduler).__name__.startswith("FlowMatch")
    kind = "flow_prediction" if flow else scheduler.config.get("prediction_type", "epsilon")
    if kind == "v_prediction":
        if p.kind == "v":
            return p.raw
        return p.path.alpha(p.t) * p.eps - p.path.sigma(p.t) * p.x0
    readings = {"flow_prediction": "velocity", "sample": "x0", "epsilon": "eps"}
    return getattr(p, readings[kind])
