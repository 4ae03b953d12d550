"""DDIM against diffusers' DDIMScheduler and against the paper's formula."""

import diffusers
import numpy as np
import pytest
import torch

from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.methods.schedules.native import Native
from dit_tools.methods.solvers.ddim import Ddim
from dit_tools.models.scheduler import scheduler_facts
from tests.support.gaussian import LINEAR, Gaussian, end, scheduler_run, start

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


class Fixed:
    """A noise stream that always gives the same array."""

    def __init__(self, array):
        self.array = array

    def fresh(self):
        """The array."""
        return self.array


@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"clip_sample": True, "clip_sample_range": 0.8},
        {"set_alpha_to_one": False},
        {"steps_offset": 1},
        {"beta_schedule": "scaled_linear"},
    ],
)
def test_equals_ddim_scheduler(prediction, spacing, extra):
    scheduler = diffusers.DDIMScheduler(
        prediction_type=prediction, timestep_spacing=spacing, **{"clip_sample": False} | extra
    )
    config = {"_class_name": "DDIMScheduler", **dict(scheduler.config)}
    known = scheduler_facts(config)
    data = Gaussian(known.path, KINDS[prediction])
    x = torch.as_tensor(start("float32"))
    times = Native().times(20, ModelInfo(known.path, 4, config))
    clip = extra.get("clip_sample_range")
    assert known.solver == ("ddim" if clip is None else "ddim:clip=0.8")
    mine = end(Ddim(clip=clip), data, x, times)
    assert abs(mine - scheduler_run(scheduler, data, x, 20)).max() < 1e-5


def test_zero_terminal_signal():
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False, rescale_betas_zero_snr=True
    )
    config = {"_class_name": "DDIMScheduler", **dict(scheduler.config)}
    path = scheduler_facts(config).path
    data = Gaussian(path, "v")
    x = torch.as_tensor(start("float32"))
    mine = end(Ddim(), data, x, Native().times(10, ModelInfo(path, 4, config)))
    assert path.alpha(1.0) == pytest.approx(0.0, abs=1e-7)
    assert abs(mine - scheduler_run(scheduler, data, x, 10)).max() < 1e-5


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_equals_ddim_scheduler(eta):
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    data = Gaussian(LINEAR, "eps")
    x = torch.as_tensor(start("float32"))
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    mark = scheduler.timesteps[2]
    t, s = (LINEAR.at_index(float(m)) for m in scheduler.timesteps[2:4])
    theirs = scheduler.step(data(x, t).raw, mark, x, eta=eta, variance_noise=z)[0]
    assert abs(end(Ddim(eta=eta), data, x, [t, s], Fixed(z)) - theirs).max() < 1e-5


@pytest.mark.parametrize("path", [Flow(), LINEAR], ids=["flow", "vp"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_marginal_variance_is_kept(path, eta):
    """For point-mass data the noise of x_s must have standard deviation sigma(s) for any eta."""
    random = np.random.default_rng(5)
    x = path.alpha(0.8) * 0.7 + path.sigma(0.8) * random.standard_normal((200_000, 1))
    z = Fixed(random.standard_normal(x.shape))
    data = Gaussian(path, "eps", mean=0.7, spread=0.0)
    after = end(Ddim(eta=eta), data, x, [0.8, 0.3], z)
    assert after.mean() == pytest.approx(path.alpha(0.3) * 0.7, abs=4e-3)
    assert after.std() == pytest.approx(path.sigma(0.3), rel=5e-3)


def test_no_noise_is_drawn_at_the_end_or_without_eta():
    data = Gaussian(Flow(), "flow")
    assert np.isfinite(end(Ddim(eta=1.0), data, start(), [0.5, 0.0], noise=None)).all()
    assert np.isfinite(end(Ddim(), data, start(), [0.5, 0.2], noise=None)).all()
