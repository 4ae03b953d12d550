"""Euler equals diffusers' flow-matching scheduler to the last bit."""

import diffusers
import pytest
import torch

from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.methods.schedules.native import Native
from dit_tools.methods.solvers.ddim import Ddim
from dit_tools.methods.solvers.euler import Euler
from tests.support.gaussian import LINEAR, Gaussian, end, start, vp_times


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 5, 28])
def test_every_step_equals_flow_match_euler(steps, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    data = Gaussian(Flow(), "flow")
    times = Native().times(steps, ModelInfo(Flow(), 4, dict(scheduler.config)))
    x = theirs = torch.as_tensor(start("float32"))
    for i, step in enumerate(Euler().steps(data, x, times, None)):
        raw = data(theirs, float(scheduler.sigmas[i])).raw
        theirs = scheduler.step(raw, scheduler.timesteps[i], theirs, return_dict=False)[0]
        assert torch.equal(step.x, theirs) or abs(step.x - theirs).max() < 1e-6


def test_is_ddim_on_a_variance_preserving_path():
    data, times = Gaussian(LINEAR, "eps"), vp_times(1.0, 0.1, 9)
    one, two = (end(solver, data, start(), times) for solver in (Euler(), Ddim()))
    assert (one == two).all()
