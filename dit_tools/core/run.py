"""The state of one sampling run that methods may look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """Where a run stands. The denoiser writes it, attached methods read it.

    ``call`` counts guided evaluations from 0 (a second-order solver makes two a step);
    ``branches`` names the rows of the current network call, in order, e.g. ``("uncond", "cond")``;
    ``calls_expected`` is how many evaluations the plain solver will make; ``grid`` the rows and
    columns of image tokens, (0, 0) where nobody said; ``native`` those that the model was made for,
    where --highres asks. ``x`` holds the latents of the current call,
    ``path`` is the model's, ``calibration`` what ``dit calibrate`` found for the chosen cache.
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
    count: Counter[str] = field(default_factory=lambda: Counter[str]())
