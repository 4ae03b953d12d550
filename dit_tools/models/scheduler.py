"""What a diffusers scheduler config says: noise path, prediction kind, the solver that it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_tools.core.paths import VP, Flow, Path
from dit_tools.models.betas import cumprods

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
MULTISTEP = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Schedulers that cut their times to integer timesteps, flow or not."""
CONTINUOUS = ("Euler", "Heun", "LMS", "KDPM2")
"""Parts of the names of schedulers that hand the network fractional timesteps."""


@dataclass(frozen=True)
class SchedulerFacts:
    """The facts that matter to a run: path, prediction kind, native solver, timestep rounding."""

    path: Path
    kind: str  # of core.prediction.KINDS
    solver: str  # a spec of the solvers category
    rounding: str  # "none", "nearest" or "down": how the network's timesteps become integers
    training_steps: int = 1000

    def timestep(self, t: float) -> float:
        """The network's timestep of ``t``: ``1000 t`` on a flow, else the index in the table."""
        index = max(self.path.index(t), 0.0) if isinstance(self.path, VP) else t * self.training_steps
        if self.rounding == "none":
            return index
        return float(round(index) if self.rounding == "nearest" else int(index))


def scheduler_facts(config: Mapping[str, Any]) -> SchedulerFacts:
    """Facts of a ``scheduler_config.json``. Raises ModelError for betas that cannot be read."""
    name = str(config.get("_class_name", ""))
    flow = name.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
    kind = "flow" if flow else KINDS.get(str(config.get("prediction_type", "epsilon")), "eps")
    path: Path = Flow() if flow else _vp(config)
    count = int(config.get("num_train_timesteps", 1000))
    return SchedulerFacts(path, kind, _solver(name, config), _rounding(name, config, flow), count)


def _rounding(name: str, config: Mapping[str, Any], flow: bool) -> str:
    """Truncation is an accident of the multistep schedulers, kept to give what they give."""
    if flow:
        return "down" if name in MULTISTEP else "none"
    if any(part in name for part in CONTINUOUS):
        return "none"
    fractional = config.get("use_exponential_sigmas") or config.get("use_beta_sigmas")
    return "down" if name in MULTISTEP and fractional else "nearest"


def _solver(name: str, config: Mapping[str, Any]) -> str:
    """The spec of our solver that does what the scheduler does, or diffusers' own scheduler."""
    ours = {
        "": lambda: "euler",
        "FlowMatchEulerDiscreteScheduler": lambda: _euler(config),
        "DDIMScheduler": lambda: _ddim(config),
        "DPMSolverMultistepScheduler": lambda: _dpm(config),
        "UniPCMultistepScheduler": lambda: _unipc(config),
    }.get(name)
    spec = ours() if ours and not config.get("thresholding") else ""
    return spec or f"diffusers:class={name}"


def _euler(config: Mapping[str, Any]) -> str:
    odd = config.get("stochastic_sampling") or config.get("invert_sigmas")
    return "" if odd else "euler"


def _ddim(config: Mapping[str, Any]) -> str:
    if not config.get("clip_sample", True):
        return "ddim"
    return f"ddim:clip={float(config.get('clip_sample_range', 1.0))!r}"


def _dpm(config: Mapping[str, Any]) -> str:
    order = config.get("solver_order", 2)
    plain = config.get("algorithm_type", "dpmsolver++") == "dpmsolver++"
    plain = plain and config.get("solver_type", "midpoint") == "midpoint" and order in (1, 2)
    if not plain or config.get("euler_at_final"):
        return ""
    return "dpmpp-2m" + _options(config, order)


def _unipc(config: Mapping[str, Any]) -> str:
    order = config.get("solver_order", 2)
    plain = config.get("predict_x0", True) and config.get("solver_type", "bh2") == "bh2"
    if not plain or order not in (1, 2, 3) or config.get("disable_corrector"):
        return ""
    return "unipc" + _options(config, order)


def _options(config: Mapping[str, Any], order: int) -> str:
    changed = [] if order == 2 else [f"order={order}"]
    if not config.get("lower_order_final", True):
        changed.append("lower_order_final=false")
    return ":" + ",".join(changed) if changed else ""


def _vp(config: Mapping[str, Any]) -> VP:
    table = cumprods(config)
    ends_noisy = config.get("final_sigmas_type") == "sigma_min"
    clean = config.get("set_alpha_to_one", True) and not ends_noisy
    return VP(table, 1.0 if clean else table[0])
