"""Finding the setting that meets a goal: so many bytes, or so many decibels."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dit_tools.core.errors import UsageError

Made = TypeVar("Made")
NEAR = 0.985
"""A file of this share of the bytes that are allowed is near enough."""
DECIBELS = 0.02
"""So much better than asked for is near enough."""
UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1_000_000, "mib": 1 << 20}


@dataclass(frozen=True)
class Goal:
    """What the user asked for: at most one of them; none is ``quality`` 50."""

    quality: float | None = None
    bpp: float | None = None
    target_size: str | None = None
    min_psnr: float | None = None

    def check(self) -> None:
        """Raise UsageError for several goals at once, or one out of bounds."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"{options} exclude each other", "give one of them")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality:g}: out of range", "give 0 to 100")
        if self.bpp is not None and not 0 < self.bpp <= 48:
            raise UsageError(f"--bpp {self.bpp:g}: out of range", "give bits a pixel, such as 0.25")
        if self.min_psnr is not None and not 0 < self.min_psnr <= 60:
            raise UsageError(f"--min-psnr {self.min_psnr:g}: out of range", "give decibels, such as 35")
        self.bytes_for(1)

    def bytes_for(self, pixels: int) -> int | None:
        """The bytes that an image of so many pixels may take; None where that is no goal."""
        if self.bpp is not None:
            return int(self.bpp * pixels / 8)
        return None if self.target_size is None else parse_size(self.target_size)


def parse_size(text: str) -> int:
    """Bytes from ``20kB``, ``1.5 MB``, ``64 KiB`` or ``20000``. Raises UsageError."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise UsageError(f"--target-size {text}: not a size", "give a number with B, kB, MB, KiB or MiB")
    return int(float(match[1]) * unit)


def fit_bytes(make: Callable[[int], tuple[int, Made]], allowed: int, worst: int, start: int) -> tuple[int, Made]:
    """The largest result of at most ``allowed`` bytes, as far as the settings reach.

    Args:
        make: Gives the bytes and the result of a setting.
        allowed: Bytes that must not be exceeded.
        worst: The setting of the fewest bytes; 0 is that of the most.
        start: Where to look first.

    Raises:
        UsageError: Even the worst setting takes more.
    """
    best: tuple[int, Made] | None = None
    low, high, setting = 0, worst, start  # bytes at a setting below ``low`` exceed what is allowed
    previous: tuple[int, int] | None = None
    while low <= high:
        size, made = make(setting)
        if size <= allowed and (best is None or size > best[0]):
            best = (size, made)
        if allowed * NEAR <= size <= allowed:
            break
        if size > allowed:
            low = setting + 1
        else:
            high = setting - 1
        setting, previous = _next(setting, size, previous, allowed * (1 + NEAR) / 2, low, high)
    if best is None:
        least = make(worst)[0]
        raise UsageError(f"{allowed} bytes cannot be reached: the least is {least}", "ask for more")
    return best


def _next(
    setting: int, size: int, previous: tuple[int, int] | None, wanted: float, low: int, high: int
) -> tuple[int, tuple[int, int]]:
    """A setting between the bounds where the logarithm of the bytes should be as wanted."""
    import math

    slope = -1.2 / 128
    if previous is not None and previous[0] != setting and previous[1] != size:
        slope = math.log2(size / previous[1]) / (setting - previous[0])
        slope = min(-0.2 / 128, max(-3 / 128, slope))
    guess = round(setting + math.log2(max(wanted, 1) / size) / slope)
    # A tenth of the interval at least from either end, so that the search is over soon.
    rest = (high - low) // 10
    return min(max(guess, low + rest), high - rest), (setting, size)


def fit_quality(make: Callable[[int], tuple[float, Made]], wanted: float, worst: int, start: int) -> tuple[float, Made]:
    """The fewest bytes whose quality is at least ``wanted`` decibels.

    Raises:
        UsageError: Even setting 0 is worse.
    """
    best: tuple[int, float, Made] | None = None
    low, high, setting, slope = 0, worst, start, -4.5 / 128
    while low <= high:
        quality, made = make(setting)
        if quality >= wanted:
            if best is None or setting > best[0]:
                best = (setting, quality, made)
            low = setting + 1
            if quality - wanted <= DECIBELS:
                break
        else:
            high = setting - 1
        guess = round(setting + (wanted + DECIBELS / 2 - quality) / slope)
        setting = min(max(guess, low), high)
    if best is None:
        reached = make(0)[0]
        raise UsageError(f"--min-psnr {wanted:g} cannot be reached: the best is {reached:.2f}", "ask for less")
    return best[1], best[2]
