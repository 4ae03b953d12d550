"""A mixture of Gaussians, whose exact denoiser is curved as a trained network's is."""

import numpy as np

from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction

SHAPE = (4, 4, 4)


class Mixture:
    """Eight modes of deviation 0.25; predicts velocity on a flow and eps on another path."""

    def __init__(self, path=None, seed=0, shift=0.0):
        self.path = path or Flow()
        self.centres = np.random.default_rng(seed).standard_normal((8, *SHAPE)) + shift
        self.calls = 0

    def __call__(self, x, t):
        self.calls += 1
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        centres = self.centres.astype(x.dtype)
        total = (alpha * 0.25) ** 2 + sigma**2
        off = x[:, None] - alpha * centres[None]
        logits = -(off**2).sum((2, 3, 4)) / (2 * total)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        eps = sigma / total * (weights[:, :, None, None, None] * off).sum(1)
        if not isinstance(self.path, Flow):
            return Prediction(eps, "eps", x, t, self.path)
        gain = alpha * 0.25**2 / total
        x0 = (weights[:, :, None, None, None] * (centres[None] + gain * off)).sum(1)
        return Prediction(eps - x0, "flow", x, t, self.path)

    def data(self, dtype="float64", seed=1):
        """One sample (1, C, h, w)."""
        random = np.random.default_rng(seed)
        return (self.centres[:1] + 0.25 * random.standard_normal((1, *SHAPE))).astype(dtype)


class Stream:
    """Standard-normal noise."""

    def __init__(self, seed=7, dtype="float64"):
        self.random, self.dtype = np.random.default_rng(seed), dtype

    def fresh(self):
        return self.random.standard_normal((1, *SHAPE)).astype(self.dtype)


def uniform(steps, start=1.0):
    """Equal steps to 0."""
    return tuple(start * (1 - i / steps) for i in range(steps + 1))


def round_trip(inversion, denoise, x0, times, noise=None):
    """The largest error of the way there and back, and what was found on the way."""
    times = inversion.usable(times, denoise.path)
    found = inversion.invert(denoise, x0, times, noise or Stream(dtype=x0.dtype))
    *_, last = inversion.back(found.state).steps(denoise, found.noise, times, None)
    return float(abs(last.x - x0).max()), found
