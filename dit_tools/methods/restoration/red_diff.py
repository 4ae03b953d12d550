"""RED-diff: the image is a variable that is optimized, with the model as its regularizer."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow, Path
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import cap_times
from dit_tools.methods.restoration import Problem, Restoration

BETAS, TINY = (0.9, 0.99), 1e-8  # of Adam, as in the authors' code


@method(
    paper="arXiv:2305.04391",
    year=2023,
    title="A Variational Perspective on Solving Inverse Problems with Diffusion Models",
    authors="Mardani, Song, Kautz, Vahdat",
)
class RedDiff(Restoration):
    """Minimizes ``|y - H x|^2 / 2 + prior sigma/alpha <eps(x_t) - noise, x>`` over falling times (Eq. 9).

    One prediction and one step of Adam at each time, from the image that the measurement gives. It
    finds one likely image, not a sample: smooth where nothing is known. Differs from the authors'
    code: sums over all elements in place of two means, so that the balance does not depend on how
    much was measured.
    """

    prior: float = param(0.25, "weight of the model; 0 = least squares", ge=0, le=100)
    rate: float = param(0.1, "learning rate of Adam", gt=0, le=10)

    def restore(self, problem: Problem) -> Array:
        """One guided prediction a step."""
        path, x = problem.path, problem.first()
        mean, square = 0.0 * x, 0.0 * x
        times = [t for t in cap_times(problem.times, path) if t > 0]
        for i, t in enumerate(times):
            slope = problem.data_gradient(x)
            if self.prior:
                noise = problem.stream.fresh()
                p = problem.denoise(path.alpha(t) * x + path.sigma(t) * noise, t)
                slope = slope + self.prior * self._pull(path, p, x, noise, t)
            mean = BETAS[0] * mean + (1 - BETAS[0]) * slope
            square = BETAS[1] * square + (1 - BETAS[1]) * slope**2
            step = mean / (1 - BETAS[0] ** (i + 1))
            x = x - self.rate * step / ((square / (1 - BETAS[1] ** (i + 1))) ** 0.5 + TINY)
        return x

    def _pull(self, path: Path, p: Prediction, x: Array, noise: Array, t: float) -> Array:
        """``sigma / alpha (eps - noise)``; on a flow ``t (velocity - (noise - x))``, finite at noise."""
        if isinstance(path, Flow):
            return t * (p.velocity - (noise - x))
        return path.sigma(t) / path.alpha(t) * (p.eps - noise)
