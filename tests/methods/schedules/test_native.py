"""Native times equal what diffusers' schedulers compute, called as the pipelines call them."""

import importlib
import json
import types

import diffusers
import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.methods.schedules._ramps import beta_quantile
from dit_tools.methods.schedules.native import Native
from dit_tools.models.scheduler import scheduler_facts

FLOW = "FlowMatchEulerDiscreteScheduler"
DYNAMIC = {"use_dynamic_shifting": True}
MULTISTEP = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


def target(scheduler, tokens=1024, passes_sigmas=False):
    config = {"_class_name": type(scheduler).__name__, **dict(scheduler.config)}
    return ModelInfo(scheduler_facts(config).path, tokens, config, passes_sigmas)


def flux_mu(tokens, config):
    """The line through (256, base_shift) and (4096, max_shift), by numpy."""
    ends = (config["base_image_seq_len"], config["max_image_seq_len"])
    line = np.polyfit(ends, (config["base_shift"], config["max_shift"]), 1)
    return float(np.polyval(line, tokens))


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
@pytest.mark.parametrize("passes_sigmas", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"shift": 3.0},
        {"shift": 6.0, "shift_terminal": 0.1},
        {"shift": 3.0, "use_karras_sigmas": True},
        {"shift": 3.0, "use_exponential_sigmas": True},
        DYNAMIC,
        DYNAMIC | {"max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
        DYNAMIC | {"time_shift_type": "linear"},
        {"num_train_timesteps": 100, "shift": 2.0},
    ],
)
def test_flow_match_euler(config, passes_sigmas, steps):
    if steps == 1 and (config.get("shift_terminal") or not passes_sigmas and "use_" in str(config)):
        steps = 3  # diffusers divides zero by zero there
    scheduler = getattr(diffusers, FLOW)(**config)
    extra = {"mu": flux_mu(1024, scheduler.config)} if config.get("use_dynamic_shifting") else {}
    if passes_sigmas:
        extra["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(steps, **extra)
    times = Native().times(steps, target(scheduler, passes_sigmas=passes_sigmas))
    assert times == pytest.approx(scheduler.sigmas.tolist(), abs=3e-7)
    assert isinstance(scheduler_facts(target(scheduler).scheduler).path, Flow)


@pytest.mark.parametrize("steps", [1, 4, 20, 37])
@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sigmas_of_multistep_schedulers(name, shift, steps):
    scheduler = getattr(diffusers, name)(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)
    scheduler.set_timesteps(steps)
    times = Native().times(steps, target(scheduler))
    assert times == pytest.approx(scheduler.sigmas.tolist(), abs=1e-7)
    given = [scheduler_facts(target(scheduler).scheduler).timestep(t) for t in times[:-1]]
    assert given == scheduler.timesteps.tolist()


def test_unipc_karras_on_a_flow():
    scheduler = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", use_karras_sigmas=True
    )
    scheduler.set_timesteps(12)
    assert Native().times(12, target(scheduler)) == pytest.approx(scheduler.sigmas.tolist(), abs=2e-6)


@pytest.mark.parametrize("steps", [1, 5, 20, 50, 333])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", [*MULTISTEP, "DDIMScheduler"])
def test_integer_timesteps(name, spacing, offset, steps):
    scheduler = getattr(diffusers, name)(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    made = target(scheduler)
    indices = [made.path.index(t) for t in Native().times(steps, made)[:-1]]
    assert indices == pytest.approx(scheduler.timesteps.tolist(), abs=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("name", MULTISTEP)
def test_sigma_conversions(name, flag, schedule):
    scheduler = getattr(diffusers, name)(**{flag: True}, beta_schedule=schedule)
    scheduler.set_timesteps(15)
    made = target(scheduler)
    times = Native().times(15, made)
    ratios = [made.path.sigma(t) / made.path.alpha(t) for t in times]
    assert ratios == pytest.approx(scheduler.sigmas.tolist(), rel=1e-4, abs=1e-7)
    if schedule != "squaredcos_cap_v2":
        rounded = [scheduler_facts(made.scheduler).timestep(t) for t in times[:-1]]
        assert rounded == scheduler.timesteps.tolist()


def test_uniform_log_snr_and_clipping():
    scheduler = diffusers.DPMSolverMultistepScheduler(use_lu_lambdas=True)
    scheduler.set_timesteps(9)
    made = target(scheduler)
    ratios = [made.path.sigma(t) / made.path.alpha(t) for t in Native().times(9, made)]
    assert ratios == pytest.approx(scheduler.sigmas.tolist(), rel=1e-4, abs=1e-7)
    clipped = diffusers.DPMSolverMultistepScheduler(lambda_min_clipped=-5.1, beta_schedule="squaredcos_cap_v2")
    clipped.set_timesteps(9)
    made = target(clipped)
    indices = [made.path.index(t) for t in Native().times(9, made)[:-1]]
    assert indices == pytest.approx(clipped.timesteps.tolist(), abs=1e-9)
    assert indices[0] < 999


def test_last_noise_level_of_the_table():
    scheduler = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min")
    scheduler.set_timesteps(8)
    made = target(scheduler)
    end = Native().times(8, made)[-1]
    assert made.path.sigma(end) / made.path.alpha(end) == pytest.approx(scheduler.sigmas[-1].item(), rel=1e-5)


def test_config_of_a_file_may_leave_defaults_out():
    full = diffusers.DPMSolverMultistepScheduler()
    full.set_timesteps(10)
    config = json.loads('{"_class_name": "DPMSolverMultistepScheduler"}')
    made = ModelInfo(scheduler_facts(config).path, 4, config)
    indices = [made.path.index(t) for t in Native().times(10, made)[:-1]]
    assert indices == pytest.approx(full.timesteps.tolist(), abs=1e-9)


@pytest.mark.parametrize("name", [*MULTISTEP, "DDIMScheduler"])
def test_too_many_steps(name):
    with pytest.raises(UsageError, match="--steps 5000.*use at most"):
        Native().times(5000, target(getattr(diffusers, name)()))


@pytest.mark.parametrize(("name", "config"), [(FLOW, {"shift": 3.0}), *((name, {}) for name in MULTISTEP)])
def test_beta_sigmas(monkeypatch, name, config):
    """With our quantiles in scipy's place, which need not be installed."""
    module = importlib.import_module(getattr(diffusers, name).__module__)
    quantile = types.SimpleNamespace(ppf=beta_quantile)
    scipy = types.SimpleNamespace(stats=types.SimpleNamespace(beta=quantile))
    monkeypatch.setattr(module, "is_scipy_available", lambda: True)
    monkeypatch.setattr(module, "scipy", scipy, raising=False)
    scheduler = getattr(diffusers, name)(use_beta_sigmas=True, **config)
    scheduler.set_timesteps(12)
    made = target(scheduler)
    times = Native().times(12, made)
    path = made.path
    levels = times if name == FLOW else [path.sigma(t) / path.alpha(t) for t in times]
    assert levels == pytest.approx(scheduler.sigmas.tolist(), rel=1e-4, abs=1e-6)
