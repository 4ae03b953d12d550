"""The state of one sampling run that methods may look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Run:
    """Where a run stands. The denoiser writes it, attached methods read it.

    ``call`` counts guided evaluations from 0 (a second-order solver makes two a step);
    ``branches`` names the rows of the current network call, in order, e.g. ``("uncond", "cond")``;
    ``calls_expected`` is how many evaluations the plain solver will make.
    """

    times: tuple[float, ...]
    calls_expected: int
    call: int = -1
    t: float = 1.0
    branches: tuple[str, ...] = ()
    count: Counter[str] = field(default_factory=lambda: Counter[str]())
