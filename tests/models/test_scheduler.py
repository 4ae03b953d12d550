"""What a scheduler config is read as: path, kind, solver and timesteps."""

import pytest

from dit_tools.core import spec
from dit_tools.core.paths import VP, Flow
from dit_tools.models.scheduler import scheduler_facts

DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"


@pytest.mark.parametrize(
    ("config", "solver"),
    [
        ({}, "euler"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "euler"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True},
            "diffusers:class=FlowMatchEulerDiscreteScheduler",
        ),
        ({"_class_name": "DDIMScheduler"}, "ddim:clip=1.0"),
        ({"_class_name": "DDIMScheduler", "clip_sample": False}, "ddim"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "diffusers:class=DDIMScheduler"),
        ({"_class_name": DPM}, "dpmpp-2m"),
        ({"_class_name": DPM, "solver_order": 1}, "dpmpp-2m:order=1"),
        ({"_class_name": DPM, "lower_order_final": False}, "dpmpp-2m:lower_order_final=false"),
        ({"_class_name": DPM, "solver_order": 3}, f"diffusers:class={DPM}"),
        ({"_class_name": UNIPC, "solver_order": 3}, "unipc:order=3"),
        ({"_class_name": UNIPC, "solver_type": "bh1"}, f"diffusers:class={UNIPC}"),
        ({"_class_name": UNIPC, "disable_corrector": [0]}, f"diffusers:class={UNIPC}"),
        ({"_class_name": "PNDMScheduler"}, "diffusers:class=PNDMScheduler"),
    ],
)
def test_solver(config, solver):
    assert scheduler_facts(config).solver == solver
    assert spec.format(spec.parse("solvers", solver)) == solver


@pytest.mark.parametrize(
    ("config", "path", "kind"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, Flow, "flow"),
        ({"_class_name": DPM, "use_flow_sigmas": True}, Flow, "flow"),
        ({"_class_name": DPM}, VP, "eps"),
        ({"_class_name": DPM, "prediction_type": "v_prediction"}, VP, "v"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "sample"}, VP, "x0"),
    ],
)
def test_path_and_kind(config, path, kind):
    known = scheduler_facts(config)
    assert isinstance(known.path, path) and known.kind == kind


@pytest.mark.parametrize(
    ("config", "t", "timestep"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 0.4567, 456.7),
        ({"_class_name": DPM, "use_flow_sigmas": True}, 0.4567, 456),
        ({"_class_name": DPM}, 0.4567, 456),  # index 455.7, to the nearest
        ({"_class_name": DPM, "use_exponential_sigmas": True}, 0.4567, 455),
        ({"_class_name": "EulerDiscreteScheduler"}, 0.4567, 455.7),
        ({"_class_name": "DDIMScheduler"}, 1.0, 999),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": 50}, 0.5, 24),
    ],
)
def test_timestep_of_the_network(config, t, timestep):
    assert scheduler_facts(config).timestep(t) == pytest.approx(timestep)


@pytest.mark.parametrize(
    "config", [{"set_alpha_to_one": False}, {"_class_name": DPM, "final_sigmas_type": "sigma_min"}]
)
def test_noisy_end(config):
    path = scheduler_facts(config).path
    assert path.sigma(0.0) == path.sigma(0.001) > 0
