"""What benchmarks/acceleration.py makes of its figures: a verdict, a table, JSON lines, a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks import figures


@dataclass(frozen=True)
class Row:
    """What is printed of one run. ``psnr`` in dB is infinite for equal images.

    ``line`` is the PSNR that fewer steps give at this speed-up, ``found`` per cent of images that
    the image-text model recognises, ``more`` how many points more than of the plain run's, ``error`` that
    difference's standard error; None for what cannot be told.
    """

    run: str
    calls: int
    computed: int
    skipped: int
    speedup: float
    psnr: float
    ssim: float
    line: float | None = None
    found: float | None = None
    more: float | None = None
    error: float | None = None

    def judged(self, hits: Any, plain: Any) -> Row:
        """With what the image-text model recognises (N,) of its images, and of the plain run's."""
        found, other = 100.0 * hits, 100.0 * plain
        error = (found - other).std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else math.nan
        return replace(self, found=float(found.mean()), more=float((found - other).mean()), error=float(error))

    @property
    def worth(self) -> bool | None:
        """Whether it beats fewer steps in the same time."""
        return None if self.line is None else self.psnr > self.line


def judged(rows: Sequence[Row], fewer: Sequence[Row]) -> list[Row]:
    """The rows with the PSNR of fewer steps at their speed-up; those of fewer steps without."""
    names = {one.run for one in fewer}
    return [one if one.run in names else replace(one, line=at(fewer, one.speedup)) for one in rows]


def at(fewer: Sequence[Row], speedup: float) -> float | None:
    """PSNR of fewer steps at a speed-up: linear in its logarithm between and beyond the runs."""
    points = sorted((math.log(r.speedup), r.psnr) for r in fewer if math.isfinite(r.psnr))
    x = math.log(speedup)
    if len(points) < 2:
        return None
    after = next((i for i, (log, _) in enumerate(points) if log >= x), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(after, 1) - 1], points[max(after, 1)]
    return y1 if x1 == x0 else y0 + (x - x0) / (x1 - x0) * (y1 - y0)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text under a heading."""
    best = front([r for r in rows if math.isfinite(r.psnr)])
    judge = "found" if any(r.found is not None for r in rows) else ""
    lines = [("run", "calls", "blocks", "skipped", "faster", "PSNR", "SSIM", "fewer steps", judge, "")]
    for r in rows:
        line = "" if r.line is None else f"{r.line:.1f}"
        verdict = {None: "", True: "worth it", False: "not worth it"}[r.worth]
        lines.append(
            (
                r.run,
                str(r.calls),
                str(r.computed),
                str(r.skipped),
                f"{r.speedup:.2f}x",
                f"{r.psnr:.1f}",
                f"{r.ssim:.3f}",
                line,
                _found(r),
                ", ".join(filter(None, (verdict, "front" if r.run in best else ""))),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _found(row: Row) -> str:
    if row.found is None or row.more is None or math.isinf(row.psnr):
        return "" if row.found is None else f"{row.found:.1f} %"
    return f"{row.found:.1f} % ({row.more:+.1f} +- {row.error:.1f})"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Numbers to the right, words to the left; columns without anything are left out."""
    last = len(cells) - 1
    parts = [
        cell.rjust(width) if 0 < i < last else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        if width
    ]
    return "  ".join(parts).rstrip()


def as_json(rows: Sequence[Row]) -> str:
    """One JSON object per line; what is infinite or not a number is null."""
    made = []
    for one in rows:
        values = asdict(one) | {"worth": one.worth}
        bad = {k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
        made.append(json.dumps({k: None if k in bad else v for k, v in values.items()}))
    return "\n".join(made)


def front(rows: Sequence[Row]) -> set[str]:
    """Runs that no other run beats in both speed-up and PSNR."""
    return {
        one.run
        for one in rows
        if not any(
            two.speedup >= one.speedup
            and two.psnr >= one.psnr
            and two is not one
            and (two.speedup, two.psnr) != (one.speedup, one.psnr)
            for two in rows
        )
    }


def plot(rows: Sequence[Row]) -> str:
    """PSNR against speed-up as SVG: a line for fewer steps, a dot with its name for each run."""
    f, finite = figures, [r for r in rows if math.isfinite(r.psnr)]
    area = f.frame([(r.speedup, r.psnr) for r in finite], (True, False), 260)
    best = front(finite)
    edge = sorted((r.speedup, r.psnr) for r in finite if r.run in best)
    low, high = round(area.low[1] / 10) * 10, int(area.high[1])
    ticks = [t for t in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12) if area.low[0] <= t <= area.high[0]]
    parts = [
        f.axes(
            area,
            ("times faster than the plain run", "PSNR to it, dB"),
            (ticks, [t for t in range(low, high + 1, 10) if t >= area.low[1]]),
        ),
        f.polyline(area, sorted((r.speedup, r.psnr) for r in finite if r.line is None), "gray"),
        f.polyline(area, edge, "#1f6feb", "4 3"),
    ]
    for r in finite:
        x, y = area.place(r.speedup, r.psnr)
        colour = {None: "gray", True: "green", False: "firebrick"}[r.worth]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        label = f"{r.run} ({r.speedup:.2f}x, {r.psnr:.1f})"
        parts.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" fill="{colour}">{label}</text>')
    legend = "gray: fewer steps; green: nearer than these at its speed; red: not worth it"
    return f.document(f"Acceleration and fidelity ({legend}; dashed: the front)", parts)
