"""The noise levels of Karras et al., dense near the clean image."""

from __future__ import annotations

from dit_tools.core.errors import UsageError
from dit_tools.core.paths import ModelInfo
from dit_tools.core.registry import method, param
from dit_tools.methods.schedules import Schedule, _ramps


@method(
    paper="arXiv:2206.00364",
    year=2022,
    title="Elucidating the Design Space of Diffusion-Based Generative Models",
    authors="Karras, Aittala, Aila, Laine",
)
class Karras(Schedule):
    """Noise levels of Karras et al.: dense near the clean image.

    Equal steps in ``(sigma / alpha)^(1/rho)`` from high to low, then 0 (Eq. 5).

    The bounds are the paper's ratios sigma / alpha. On a variance-preserving path they are kept
    within the levels that the model was trained on.
    """

    rho: float = param(7.0, "curvature; larger values put more steps near the clean image", gt=0)
    high: float = param(80.0, "largest noise level sigma / alpha", gt=0)
    low: float = param(0.002, "smallest noise level sigma / alpha before 0", gt=0)

    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """``steps + 1`` times, the first where sigma / alpha is ``high``.

        Raises UsageError when ``high`` is not above ``low``.
        """
        if self.high <= self.low:
            raise UsageError("--schedule karras: high is not above low", "give high=80,low=0.002")
        high, low = _ramps.clip_bounds(target.path, self.high, self.low)
        return _ramps.on_path(target.path, _ramps.karras(high, low, steps, self.rho))
