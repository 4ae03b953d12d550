"""Equal steps in time."""

from __future__ import annotations

from dit_tools.core.paths import ModelInfo
from dit_tools.core.registry import method
from dit_tools.methods.schedules import Schedule


@method()
class Uniform(Schedule):
    """Equal steps from t = 1 to t = 0."""

    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """``1 - i / steps`` for i = 0 .. steps."""
        return tuple(1.0 - i / steps for i in range(steps + 1))
