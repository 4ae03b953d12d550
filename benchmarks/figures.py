"""Plots as SVG, without a plotting library: points with names, and lines over logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, EDGE = 900, 560, 64
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700", "#57606a")


@dataclass(frozen=True)
class Frame:
    """The area of a plot: data from ``low`` to ``high`` on both axes, logarithmic where said."""

    low: tuple[float, float]
    high: tuple[float, float]
    logs: tuple[bool, bool]
    right: int = EDGE  # free space for names

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        shares = []
        for value, low, high, log in zip((x, y), self.low, self.high, self.logs, strict=True):
            a, b, v = (math.log(n) if log else n for n in (low, high, value))
            shares.append((v - a) / ((b - a) or 1.0))
        wide, tall = WIDTH - EDGE - self.right, HEIGHT - 2 * EDGE
        return EDGE + shares[0] * wide, HEIGHT - EDGE - shares[1] * tall


def frame(points: Sequence[tuple[float, float]], logs: tuple[bool, bool], right: int) -> Frame:
    """The smallest area that holds all points."""
    xs, ys = zip(*points, strict=True)
    return Frame((min(xs), min(ys)), (max(xs), max(ys)), logs, right)


def axes(area: Frame, names: tuple[str, str], ticks: tuple[Sequence[float], Sequence[float]]) -> str:
    """Lines, ticks and names of both axes."""
    left, bottom = EDGE, HEIGHT - EDGE
    parts = [
        f'<path d="M{left} {EDGE}V{bottom}H{WIDTH - area.right}" fill="none" stroke="#57606a"/>',
        f'<text x="{(left + WIDTH - area.right) / 2:.0f}" y="{HEIGHT - 18}" text-anchor="middle">{names[0]}</text>',
        f'<text x="18" y="{HEIGHT / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 18 {HEIGHT / 2:.0f})">{names[1]}</text>',
    ]
    for value in ticks[0]:
        x, _ = area.place(value, area.low[1])
        parts.append(f'<path d="M{x:.1f} {bottom}v5" stroke="#57606a"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in ticks[1]:
        _, y = area.place(area.low[0], value)
        parts.append(f'<path d="M{left} {y:.1f}h-5" stroke="#57606a"/>')
        parts.append(f'<text x="{left - 9}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    return "\n".join(parts)


def polyline(area: Frame, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> str:
    """A line through points."""
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in (area.place(*p) for p in points))
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5"{dashes} points="{text}"/>'


def document(title: str, parts: Sequence[str]) -> str:
    """The SVG."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="11">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{EDGE}" y="30" font-size="15">{title}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], names: tuple[str, str]) -> str:
    """Series of points on logarithmic axes, a line and a name each."""
    area = frame([p for points in series.values() for p in points], (True, True), 190)
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = _decades(area.low[1], area.high[1])
    parts = [axes(area, names, (xs, ys))]
    for (name, points), colour in zip(series.items(), COLOURS * 9, strict=False):
        parts.append(polyline(area, points, colour))
        for x, y in (area.place(*p) for p in points):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        x, y = area.place(*points[-1])
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')
    return document(title, parts)


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    return [v for v in values if low <= v <= high]
