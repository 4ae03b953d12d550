"""Gaussian data, on which every prediction, path and ODE solution is known exactly."""

import numpy as np

from dit_tools.core.paths import VP, Flow, log_snr
from dit_tools.core.prediction import Prediction
from dit_tools.models.betas import cumprods

LINEAR = VP(cumprods({}))
"""The variance-preserving path of DDPM."""

CASES = {
    "flow-flow": (Flow(), "flow"),
    "flow-eps": (Flow(), "eps"),
    "flow-x0": (Flow(), "x0"),
    "vp-eps": (LINEAR, "eps"),
    "vp-v": (LINEAR, "v"),
    "vp-x0": (LINEAR, "x0"),
}


class Gaussian:
    """``x0 ~ N(mean, spread^2)`` with the exact network of one prediction kind."""

    def __init__(self, path, kind, mean=0.7, spread=0.4):
        self.path, self.kind, self.mean, self.spread = path, kind, mean, spread
        self.asked = []

    def __call__(self, x, t):
        """The exact prediction: the posterior mean of x0, read as ``kind``."""
        self.asked.append(t)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        total = alpha**2 * self.spread**2 + sigma**2
        x0 = self.mean + alpha * self.spread**2 / total * (x - alpha * self.mean)
        eps = sigma / total * (x - alpha * self.mean)
        raw = {"x0": x0, "eps": eps, "flow": eps - x0, "v": alpha * eps - sigma * x0}[self.kind]
        return Prediction(raw, self.kind, x, t, self.path)

    def solution(self, x, t, s):
        """Where the probability-flow ODE takes ``x`` from ``t`` to ``s``."""
        return self.path.alpha(s) * self.mean + self._spread(s) / self._spread(t) * (x - self.path.alpha(t) * self.mean)

    def _spread(self, t):
        return (self.path.alpha(t) ** 2 * self.spread**2 + self.path.sigma(t) ** 2) ** 0.5


def start(dtype="float64"):
    """Latents (3, 2, 4, 5) of standard-normal noise."""
    return np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(dtype)


def end(solver, denoise, x, times, noise=None):
    """The last latents of a run."""
    return list(solver.steps(denoise, x, times, noise))[-1].x


def slope(solver, case, first, last, counts, to_array=None):
    """The order of a solver: minus the slope of log error against log number of steps."""
    path, kind = CASES[case]
    errors = []
    for count in counts:
        times = [first + (last - first) * i / count for i in range(count + 1)]
        if path is LINEAR:  # equal steps in log-SNR: in t the table is only piecewise smooth
            times = vp_times(first, last, count)
        data = Gaussian(path, kind)
        x = (to_array or (lambda array: array))(start())
        got = end(solver, data, x, times)
        errors.append(float(abs(got - data.solution(x, times[0], times[-1])).max()))
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def vp_times(first, last, count):
    """Times of the DDPM path, equally spaced in log-SNR."""
    low, high = log_snr(LINEAR, first), log_snr(LINEAR, last)
    return [LINEAR.time(low + (high - low) * i / count) for i in range(count + 1)]


def scheduler_run(scheduler, data, x, steps, **extra):
    """What a diffusers pipeline's loop gives with the exact network: the last latents."""
    import torch

    scheduler.set_timesteps(steps, **extra)
    if x.dtype == np.float64:  # so that the scheduler computes in double precision, too
        scheduler.sigmas = scheduler.sigmas.double()
    flow = isinstance(data.path, Flow)
    x = torch.as_tensor(x) * scheduler.init_noise_sigma if not flow else torch.as_tensor(x)
    for i, mark in enumerate(scheduler.timesteps):
        t = float(scheduler.sigmas[i]) if flow else data.path.at_index(float(mark))
        given = x if flow else scheduler.scale_model_input(x, mark)
        x = scheduler.step(data(given, t).raw, mark, x, return_dict=False)[0]
    return x
