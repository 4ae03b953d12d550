"""What a diffusers scheduler config says: noise path, prediction kind, the solver that it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.core.paths import VP, Flow, Path

KINDS = {
    "epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow",
}  # fmt: skip
INTEGER_TIMESTEPS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DDIMScheduler")
"""Schedulers that hand the network integer timesteps, flow or not."""


@dataclass(frozen=True)
class SchedulerFacts:
    """The facts that matter to a run: path, prediction kind, native solver, timestep rounding."""

    path: Path
    kind: str  # of core.prediction.KINDS
    solver: str  # a spec of the solvers room
    integer_timesteps: bool


def facts(config: Mapping[str, Any]) -> SchedulerFacts:
    """Facts of a ``scheduler_config.json``. Raises ModelError for betas that cannot be read."""
    name = str(config.get("_class_name", ""))
    flow = name.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
    kind = "flow" if flow else KINDS.get(str(config.get("prediction_type", "epsilon")), "eps")
    path: Path = Flow() if flow else _vp(config)
    return SchedulerFacts(path, kind, _solver(name, config), name in INTEGER_TIMESTEPS)


def _solver(name: str, config: Mapping[str, Any]) -> str:
    if name == "FlowMatchEulerDiscreteScheduler":
        return "euler"
    if name == "DDIMScheduler":
        return "ddim"
    order = config.get("solver_order", 2)
    plain = config.get("algorithm_type", "dpmsolver++") == "dpmsolver++" and order in (1, 2)
    if name == "DPMSolverMultistepScheduler" and plain:
        return "dpmpp-2m" if order == 2 else f"dpmpp-2m:order={order}"
    if name == "UniPCMultistepScheduler" and order in (1, 2, 3):
        return "unipc" if order == 2 else f"unipc:order={order}"
    return f"diffusers:class={name}" if name else "euler"


def _vp(config: Mapping[str, Any]) -> VP:
    betas = _betas(config)
    cumprod, product = [], 1.0
    for beta in betas:
        product *= 1.0 - beta
        cumprod.append(product)
    final = 1.0 if config.get("set_alpha_to_one", True) else cumprod[0]
    return VP(tuple(cumprod), final)


def _betas(config: Mapping[str, Any]) -> list[float]:
    trained = config.get("trained_betas")
    if trained is not None:
        return [float(beta) for beta in trained]
    count = int(config.get("num_train_timesteps", 1000))
    low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    schedule = config.get("beta_schedule", "linear")
    line = [i / max(count - 1, 1) for i in range(count)]
    if schedule == "linear":
        return [low + (high - low) * u for u in line]
    if schedule == "scaled_linear":
        return [(low**0.5 + (high**0.5 - low**0.5) * u) ** 2 for u in line]
    if schedule == "squaredcos_cap_v2":
        return [_cosine_beta(i, count) for i in range(count)]
    raise ModelError(f"unknown beta_schedule {schedule!r} in the scheduler's config")


def _cosine_beta(i: int, count: int) -> float:
    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return min(1 - bar((i + 1) / count) / bar(i / count), 0.999)
