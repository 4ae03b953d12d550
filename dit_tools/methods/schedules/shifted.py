"""Equal steps, moved towards noise: the time shift of flow models."""

from __future__ import annotations

import math

from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.core.registry import method, param
from dit_tools.methods.schedules import Schedule, _ramps


@method(
    paper="arXiv:2403.03206",
    year=2024,
    title="Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    authors="Esser, Kulal, Blattmann, Entezari, Mueller, Saini, Levi, Lorenz, Sauer, Boesel, "
    "Podell, Dockhorn, English, Lacey, Goodwin, Marek, Rombach",
)
class Shifted(Schedule):
    """Equal steps shifted towards noise, as flow models at large sizes use.

    ``t' = shift t / (1 + (shift - 1) t)`` of equal steps in t (Eq. 23).

    A larger shift spends more steps near noise. On a variance-preserving path the same curve
    runs over sigma / (alpha + sigma), from the path's own noisiest level.
    """

    shift: float | None = param(3.0, "1 = equal steps; none = by the number of tokens", gt=0, le=1e4)

    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """``steps + 1`` times from 1 to 0. ``shift=none`` takes ``exp(mu)`` of ``target.mu``."""
        factor = math.exp(target.mu) if self.shift is None else self.shift
        made = [_ramps.shift(1.0 - i / steps, factor) for i in range(steps)]
        if isinstance(target.path, Flow):
            return (*made, 0.0)
        high, _ = _ramps.clip_bounds(target.path, math.inf, 0.0)
        top = high / (1 + high) if high < math.inf else 1.0
        return _ramps.on_path(target.path, [_ramps.flow_sigma(top * t) for t in made])
