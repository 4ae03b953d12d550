"""The times that the model's own diffusers pipeline would use, from its scheduler's config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Flow, ModelInfo, log_snr
from dit_tools.core.registry import method
from dit_tools.methods.schedules import Schedule, _ramps
from dit_tools.models.betas import cumprods

FLOW_START = _ramps.round_to_float32([1.0 - 1e-6])[0]
"""UniPC's first flow time: where 1 would make its first log signal-to-noise ratio infinite."""


@method()
class Native(Schedule):
    """The times of the model's own scheduler config, as its diffusers pipeline computes them.

    FlowMatchEulerDiscrete (static shift, or dynamic by token count), DPMSolverMultistep, UniPC and
    DDIM with their spacings and sigma conversions; other schedulers get DDIM's spacing, or the
    unshifted flow times. Two cases differ from diffusers, whose step there does not end where its
    next step begins: DDIM with linspace or with trailing and a step count that does not divide
    the training steps, and flow sigmas with ``final_sigmas_type=sigma_min``, which end at 0 here.
    """

    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """Times of the scheduler. Raises UsageError for more steps than it has."""
        flow = isinstance(target.path, Flow)
        made = (*(_flow(steps, target) if flow else _discrete(steps, target)), 0.0)
        if any(after >= before for before, after in zip(made, made[1:], strict=False)):
            count = int(target.scheduler.get("num_train_timesteps", 1000))
            raise UsageError(
                f"--steps {steps}: too many for the model's own schedule",
                f"use at most {count // 2}, or --schedule uniform",
            )
        return made


# flow ------------------------------------------------------------------------------------------


def _flow(steps: int, target: ModelInfo) -> Sequence[float]:
    name = target.scheduler.get("_class_name")
    if name == "DPMSolverMultistepScheduler":
        return _dpm_flow(steps, target)
    if name == "UniPCMultistepScheduler":
        return _unipc_flow(steps, target)
    return _flow_match(steps, target)


def _flow_match(steps: int, target: ModelInfo) -> Sequence[float]:
    c = target.scheduler
    lowest = 1 / c.get("num_train_timesteps", 1000)
    if target.passes_sigmas:
        ramp = _ramps.linspace(1.0, 1 / steps, steps)
    else:  # the scheduler's own ramp runs to its lowest level, which a static shift moves already
        if not c.get("use_dynamic_shifting"):
            lowest = _ramps.round_to_float32([_ramps.shift(lowest, c.get("shift", 1.0))])[0]
        ramp = _ramps.linspace(1.0, lowest, steps)
    times = _terminal(_shifted(ramp, target, "shift"), c.get("shift_terminal"))
    if _conversion(c):
        times = _converted(times[0], times[-1], steps, c)
    return _ramps.round_to_float32(times)


def _unipc_flow(steps: int, target: ModelInfo) -> Sequence[float]:
    c = target.scheduler
    count = c.get("num_train_timesteps", 1000)
    if _conversion(c):  # in the sigma / alpha of the discrete table, as diffusers has it
        table = cumprods(c)
        high, low = _odds(table[-1]), _odds(table[0])
        return [level / (level + 1) for level in _converted(high, low, steps, c)]
    if target.passes_sigmas:
        ramp = _ramps.linspace(1.0, 1 / steps, steps)
    else:
        ramp = _ramps.linspace(1.0, 1 / count, steps + 1)[:-1]
    times = _terminal(_shifted(ramp, target, "flow_shift"), c.get("shift_terminal"))
    return [FLOW_START if abs(t - 1) < 1e-6 else t for t in times]


def _dpm_flow(steps: int, target: ModelInfo) -> Sequence[float]:
    alphas = _ramps.linspace(1.0, 1 / target.scheduler.get("num_train_timesteps", 1000), steps + 1)
    return _shifted([1.0 - alpha for alpha in reversed(alphas[1:])], target, "flow_shift")


def _shifted(times: Sequence[float], target: ModelInfo, key: str) -> list[float]:
    c = target.scheduler
    factor = c.get(key, 1.0)
    if c.get("use_dynamic_shifting"):
        linear = c.get("time_shift_type", "exponential") == "linear"
        factor = target.mu if linear else math.exp(target.mu)
    return [_ramps.shift(t, factor) for t in times]


def _terminal(times: list[float], last: float | None) -> list[float]:
    if not last or times[-1] >= 1:
        return times
    stretch = (1 - times[-1]) / (1 - last)
    return [1 - (1 - t) / stretch for t in times]


# variance preserving ------------------------------------------------------------------------------


def _discrete(steps: int, target: ModelInfo) -> Sequence[float]:
    c, path = target.scheduler, target.path
    if _conversion(c):
        last = 1 / len(path.alphas_cumprod)  # type: ignore[attr-defined]
        high, low = math.exp(-log_snr(path, 1.0)), math.exp(-log_snr(path, last))
        levels = _converted(high, low, steps, c)
        return [path.time(-math.log(level)) for level in levels]
    return [path.at_index(index) for index in _indices(steps, target)]  # type: ignore[attr-defined]


def _indices(steps: int, target: ModelInfo) -> Sequence[int]:
    """Falling integer timesteps (Lin et al. 2023, arXiv:2305.08891, Table 2)."""
    c = target.scheduler
    multistep = c.get("_class_name") in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
    count = _usable(target)
    spacing = c.get("timestep_spacing", "linspace" if multistep else "leading")
    extra = 1 if multistep else 0  # these leave out the last of steps + 1 points
    if spacing == "linspace":
        line = _ramps.linspace(0.0, count - 1.0, steps + extra)
        return [round(value) for value in reversed(line[extra:] if steps + extra > 1 else line)]
    if spacing == "leading":
        ratio = count // (steps + extra)
        offset = c.get("steps_offset", 0)
        return [i * ratio + offset for i in reversed(range(extra, steps + extra))]
    ratio = c.get("num_train_timesteps", 1000) / steps
    return [round(count - i * ratio) - 1 for i in range(steps) if count - i * ratio > 1e-9]


def _usable(target: ModelInfo) -> int:
    """Training steps whose log signal-to-noise ratio is above DPM-Solver's clipping threshold."""
    path, clip = target.path, target.scheduler.get("lambda_min_clipped", -math.inf)
    count = len(path.alphas_cumprod)  # type: ignore[attr-defined]
    if clip == -math.inf:
        return count
    return sum(log_snr(path, path.at_index(i)) >= clip for i in range(count))  # type: ignore[attr-defined]


# conversions --------------------------------------------------------------------------------------


def _conversion(c: Mapping[str, Any]) -> str:
    for name in ("karras", "exponential", "beta"):
        if c.get(f"use_{name}_sigmas"):
            return name
    return "exponential" if c.get("use_lu_lambdas") else ""  # rho = 1: the same levels


def _converted(high: float, low: float, steps: int, c: Mapping[str, Any]) -> list[float]:
    high, low = c.get("sigma_max") or high, c.get("sigma_min") or low
    return getattr(_ramps, _conversion(c))(high, low, steps)


def _odds(cumprod: float) -> float:
    return math.sqrt((1 - cumprod) / cumprod)
