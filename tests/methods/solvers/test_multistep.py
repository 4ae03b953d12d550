"""Our multistep solvers against diffusers' schedulers, from the same config."""

import diffusers
import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.methods.schedules.native import Native
from dit_tools.models.scheduler import scheduler_facts
from tests.support.gaussian import Gaussian, end, scheduler_run, start

CONFIGS = {
    "eps": {},
    "v": {"prediction_type": "v_prediction"},
    "x0": {"prediction_type": "sample"},
    "flow": {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    "karras": {"use_karras_sigmas": True},
    "trailing": {"timestep_spacing": "trailing"},
    "leading": {"timestep_spacing": "leading", "steps_offset": 1},
    "noisy end": {"final_sigmas_type": "sigma_min"},
    "full order": {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
    "zero signal": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}


def runs(name, config, steps, dtype):
    """Our latents and diffusers', from the solver and times that the config means."""
    scheduler = getattr(diffusers, name)(**config)
    full = {"_class_name": name, **dict(scheduler.config)}
    known = scheduler_facts(full)
    data = Gaussian(known.path, known.kind)
    if config.get("use_karras_sigmas"):
        data = AtSigmas(data, scheduler)
    x = start(dtype)
    times = Native().times(steps, ModelInfo(known.path, 4, full))
    mine = end(spec.parse("solvers", known.solver), Gaussian(known.path, known.kind), torch.as_tensor(x), times)
    return known.solver, mine, scheduler_run(scheduler, data, x, steps)


class AtSigmas:
    """The exact network at the scheduler's own noise level instead of its rounded timestep."""

    def __init__(self, data, scheduler):
        self.data, self.scheduler, self.path, self.calls = data, scheduler, data.path, 0

    def __call__(self, x, t):
        ratio = float(self.scheduler.sigmas[self.calls])
        self.calls += 1
        return self.data(x, self.path.time(-np.log(ratio)))


@pytest.mark.parametrize("steps", [2, 5, 10, 25])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("case", CONFIGS)
def test_dpmpp_equals_its_scheduler(case, order, steps):
    config = CONFIGS[case] | {"solver_order": order}
    solver, mine, theirs = runs("DPMSolverMultistepScheduler", config, steps, "float32")
    assert solver.startswith("dpmpp-2m") and ("order=1" in solver) == (order == 1)
    # With few steps diffusers' own single precision shows: 1 / alpha is 160 at the first of them.
    assert abs(mine - theirs).max() < (1e-5 if steps > 2 else 5e-5)


@pytest.mark.parametrize("steps", [2, 5, 10, 25])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("case", CONFIGS)
def test_unipc_equals_its_scheduler(case, order, steps):
    config = CONFIGS[case] | {"solver_order": order}
    solver, mine, theirs = runs("UniPCMultistepScheduler", config, steps, "float64")
    assert solver.startswith("unipc")
    assert abs(mine - theirs).max() < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        {"algorithm_type": "sde-dpmsolver++"},
        {"solver_type": "heun"},
        {"solver_order": 3},
        {"thresholding": True},
        {"euler_at_final": True},
    ],
)
def test_other_multistep_configs_fall_back_on_diffusers(config):
    name = "DPMSolverMultistepScheduler"
    full = dict(getattr(diffusers, name)(**config).config)
    assert scheduler_facts({"_class_name": name, **full}).solver == f"diffusers:class={name}"


def test_dpmpp_is_finite_where_alpha_or_sigma_is_zero():
    for text in ("dpmpp-2m", "unipc", "unipc:order=3,lower_order_final=false"):
        x = end(spec.parse("solvers", text), Gaussian(Flow(), "x0"), start(), [1.0, 0.6, 0.3, 0.1, 0.0])
        assert np.isfinite(x).all()
