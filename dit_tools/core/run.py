"""The state of one sampling run that methods may look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dit_tools.core.arrays import Array


class ImageTextScorer(Protocol):
    """Looks at clean latents (B, C, h, w) during a run and knows the prompts of its rows."""

    def scores(self, x0: Array) -> Sequence[float]:
        """How well each row agrees with its prompt: cosines in [-1, 1]."""
        ...

    def gradient(self, x0: Array, joint: float, marginal: float) -> Array:
        """Of ``joint f_y - log sum_c exp(marginal f_c)`` by x0; f are cosines, y the prompt."""
        ...


@dataclass
class RunState:
    """Where a run stands. The denoiser writes it, attached methods read it.

    ``call`` counts guided evaluations from 0 (a second-order solver makes two a step);
    ``branches`` names the rows of the current network call, in order, e.g. ``("uncond", "cond")``;
    ``calls_expected`` is how many evaluations the plain solver will make; ``grid`` the rows and
    columns of image tokens, (0, 0) where nobody said; ``native`` those that the model was made for,
    where --highres asks. ``x`` holds the latents of the current call,
    ``path`` is the model's, ``calibration`` what ``dit calibrate`` found for the chosen cache.
    ``asker`` numbers the denoisers that take turns on one network, as an edit's source and target
    do; each has its own ``call``, and methods keep what they remember by ``key``. ``scorer`` tells
    guidance what an image shows, where the run has one.
    """

    times: tuple[float, ...]
    calls_expected: int
    grid: tuple[int, int] = (0, 0)
    native: tuple[int, int] = (0, 0)
    call: int = -1
    t: float = 1.0
    x: Any = None
    path: Any = None
    calibration: Any = None
    branches: tuple[str, ...] = ()
    asker: int = 0
    scorer: ImageTextScorer | None = None
    count: Counter[str] = field(default_factory=lambda: Counter[str]())

    @property
    def key(self) -> tuple[int, tuple[str, ...]]:
        """Who is asking for what: the denoiser's number and the branches of this call."""
        return self.asker, self.branches
