"""Diffusers' schedulers as solvers: the latents of their own loops, and clear refusals."""

import diffusers
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.methods.noise.philox import Philox
from dit_tools.methods.noise.torch_cpu import TorchCpu
from dit_tools.methods.solvers import diffusers as solver_module
from dit_tools.models.scheduler import scheduler_facts
from tests.support.gaussian import LINEAR, Gaussian, end, start

DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "timestep_spacing": "trailing"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def bound(name, config=DDIM, **extra):
    """The solver, bound to a model with this scheduler config."""
    target = ModelInfo(scheduler_facts(config).path, 1024, config, **extra)
    return spec.parse("solvers", f"diffusers:class={name}").bind(target)


def times(count):
    """Only their number matters."""
    return [1 - i / count for i in range(count + 1)]


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "HeunDiscreteScheduler",
        "DEISMultistepScheduler",
        "PNDMScheduler",
        "DPMSolverSinglestepScheduler",
        "KDPM2DiscreteScheduler",
    ],
)
def test_deterministic_schedulers_reach_the_data(name):
    data = Gaussian(LINEAR, "eps")
    x = torch.as_tensor(start("float32"))
    got = end(bound(name), data, x, times(60))
    wanted = data.solution(x, 1.0, 0.0)
    assert abs(got - wanted).max() < 0.12  # the methods' own errors; a wrong scale gives 1 or more
    assert abs(got - wanted).mean() < 0.03


def test_same_latents_as_euler_ancestral_with_the_same_generators():
    scheduler = diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(12)
    data = Gaussian(LINEAR, "eps")
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)]
    x = torch.cat([torch.randn((1, 2, 4, 5), generator=g) for g in generators])
    theirs = x * scheduler.init_noise_sigma
    for mark in scheduler.timesteps:
        raw = data(scheduler.scale_model_input(theirs, mark), LINEAR.at_index(float(mark))).raw
        theirs = scheduler.step(raw, mark, theirs, generator=generators)[0]
    stream = TorchCpu().stream((2, 4, 5), (4, 5, 6))
    mine = end(bound("EulerAncestralDiscreteScheduler"), data, stream.fresh(), times(12), stream)
    assert torch.equal(mine, theirs)


def test_noise_depends_on_the_seed_and_never_on_the_batch():
    def run(seeds):
        stream = Torch(Philox().stream((2, 4, 5), seeds))
        solver = bound("EulerAncestralDiscreteScheduler")
        return end(solver, Gaussian(LINEAR, "eps"), stream.fresh(), times(8), stream)

    both = run((1, 2))
    assert torch.equal(both[1:], run((2,))) and torch.equal(both, run((1, 2)))
    assert not torch.equal(both[0], both[1])


class Torch:
    """A numpy stream that gives tensors, as a torch model's does."""

    def __init__(self, stream):
        self.stream = stream

    def fresh(self):
        """The next noise as a tensor."""
        return torch.as_tensor(self.stream.fresh())


@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
    ],
)
def test_flow_schedulers_reach_the_data(name):
    data = Gaussian(Flow(), "flow")
    x = torch.as_tensor(start("float32"))
    got = end(bound(name, FLOW), data, x, times(60))
    assert abs(got - data.solution(x, 1.0, 0.0)).max() < 0.08


@pytest.mark.parametrize("passes", [False, True])
def test_dynamic_shift_reaches_the_scheduler(passes):
    config = {**FLOW, "use_dynamic_shifting": True}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = {"sigmas": [1 - i / 6 for i in range(6)]} if passes else {}
    mu = ModelInfo(Flow(), 1024, config).mu
    scheduler.set_timesteps(6, mu=mu, **sigmas)
    data = Gaussian(Flow(), "flow")
    solver = bound("FlowMatchEulerDiscreteScheduler", config, passes_sigmas=passes)
    end(solver, data, torch.as_tensor(start("float32")), times(6))
    assert data.asked == pytest.approx((scheduler.timesteps / 1000).tolist(), abs=1e-6)


def test_a_missing_package_is_named(monkeypatch):
    class Dummy:
        _backends = ("torch", "scipy")

    monkeypatch.setattr(diffusers.schedulers, "LMSDiscreteScheduler", Dummy)
    with pytest.raises(UnsupportedError, match="LMSDiscreteScheduler needs scipy"):
        end(bound("LMSDiscreteScheduler"), Gaussian(LINEAR, "eps"), torch.zeros(1, 1), times(2))


def test_without_a_class_it_is_the_models_own_scheduler():
    solver = spec.parse("solvers", "diffusers").bind(ModelInfo(LINEAR, 4, DDIM))
    assert solver.name == "DDIMScheduler"


def test_learned_variance_is_left_out():
    config = {**DDIM, "_class_name": "DDPMScheduler", "variance_type": "learned_range"}
    stream = TorchCpu().stream((2, 4, 5), (0, 1, 2))
    got = end(bound("DDPMScheduler", config), Gaussian(LINEAR, "eps"), stream.fresh(), times(50), stream)
    assert torch.isfinite(got).all()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("EulerAncestralScheduler", DDIM, "no scheduler class.*did you mean"),
        ("SchedulerMixin", DDIM, "no scheduler class"),
        ("__file__", DDIM, "no scheduler class"),
        ("FlowMatchEulerDiscreteScheduler", DDIM, "is for flow models"),
        ("EulerDiscreteScheduler", FLOW, "cannot sample a flow model; use FlowMatch"),
    ],
)
def test_refusals(name, config, message):
    with pytest.raises(UsageError, match=f"--solver diffusers: .*{message}"):
        end(bound(name, config), Gaussian(LINEAR, "eps"), torch.zeros(1, 1, 2, 2), times(2))


def names():
    """Every scheduler class of the installed diffusers, real ones and those that lack a package."""
    return [word for word in dir(diffusers.schedulers) if word.endswith("Scheduler")]


@pytest.mark.parametrize("config", [DDIM, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("name", names())
def test_every_scheduler_ends_at_clean_data_or_is_refused(name, config):
    """Data of one value: what differs from it at the end is noise that was left in.

    0.25 at 4 steps was the fault of DEIS on a flow. And data of a spread: that comes out, too.
    """
    path = scheduler_facts(config).path
    kind, noise = ("flow" if config is FLOW else "eps"), TorchCpu().stream((2, 8, 8), tuple(range(8)))
    x = noise.fresh()
    try:
        for count in (4, 20):
            left = end(bound(name, config), Gaussian(path, kind, spread=1e-6), x, times(count), noise) - 0.7
            assert abs(left).max() < 0.006, count
        spread = float(end(bound(name, config), Gaussian(path, kind), x, times(50), noise).std())
    except UnsupportedError as error:
        assert "needs" in str(error)
        return
    except UsageError as error:
        assert "; use " in str(error)
        plain = name.removesuffix("Scheduler")
        assert plain not in (solver_module.FLOW if config is FLOW else solver_module.VARIANCE_PRESERVING)
        return
    one_jump = name.startswith(("LCM", "FlowMatchLCM", "TCD"))  # consistency samplers: for distilled models
    assert 0.3 < spread < 0.48 or one_jump


def test_too_few_steps_for_a_scheduler_are_a_usage_error():
    with pytest.raises(UsageError, match="PNDMScheduler at 1 steps"):
        end(bound("PNDMScheduler"), Gaussian(LINEAR, "eps"), torch.as_tensor(start("float32")), times(1))
