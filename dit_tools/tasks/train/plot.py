"""The loss curve of a run, from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, EDGE = 640, 360, 48  # pixels of a panel
INK, PALE, LINE = (60, 60, 60), (225, 225, 225), (40, 90, 200)


def read_rows(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Stage -> its log lines in order of steps; a step that was made twice counts once."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    if (run / "log.jsonl").exists():
        for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line cut short by a kill
            if row.get("type") == "step":
                found.setdefault(row["stage"], {})[row["step"]] = row
    return {stage: [table[step] for step in sorted(table)] for stage, table in found.items()}


def plot_curve(run: Path) -> None:
    """Draw ``loss.png``, one panel a stage with at least two points; nothing without any."""
    from PIL import Image

    panels = [
        (stage, [(row["step"], row["loss"]) for row in table])
        for stage, table in read_rows(run).items()
        if len(table) > 1
    ]
    if not panels:
        return
    image = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    for i, (stage, points) in enumerate(panels):
        image.paste(_panel(stage, points), (0, i * HEIGHT))
    beside = run / "loss.part.png"
    image.save(beside)
    beside.replace(run / "loss.png")


def _panel(stage: str, points: list[tuple[int, float]]) -> Any:
    """Loss against steps, the loss on a logarithmic scale."""
    import math

    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    logs = [math.log10(max(loss, 1e-12)) for _, loss in points]
    low, high = min(logs), max(logs) + 1e-3
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)

    def place(step: float, log: float) -> tuple[float, float]:
        x = EDGE + (step - first) / (last - first) * (WIDTH - 2 * EDGE)
        return x, HEIGHT - EDGE - (log - low) / (high - low) * (HEIGHT - 2 * EDGE)

    for i in range(5):
        log, step = low + (high - low) * i / 4, first + (last - first) * i / 4
        draw.line([place(first, log), place(last, log)], fill=PALE)
        draw.text((4, place(first, log)[1] - 6), f"{10**log:.3g}", fill=INK)
        draw.text((place(step, low)[0] - 12, HEIGHT - EDGE + 8), f"{step:.0f}", fill=INK)
    draw.line([place(step, log) for (step, _), log in zip(points, logs, strict=True)], LINE, 2)
    draw.text((EDGE, 12), f"{stage}: loss by step", fill=INK)
    return image
