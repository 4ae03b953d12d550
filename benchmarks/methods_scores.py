"""The scores of ``benchmarks/methods.py``, and its tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
"""Column -> value of one run: text, a number, or None where there is nothing to say."""


def gain(one: Sequence[float], other: Sequence[float]) -> Row:
    """Mean difference with twice its standard error, and what that means."""
    apart = [a - b for a, b in zip(one, other, strict=True)]
    mean, twice = statistics.fmean(apart), math.inf
    if len(apart) > 1:
        twice = 2 * statistics.stdev(apart) / math.sqrt(len(apart))
    verdict = "same" if abs(mean) <= twice else "better" if mean > 0 else "worse"
    return {"gain": f"{mean:+.3f} +- {twice:.3f}", "verdict": verdict}


def cosines(pixels: Any, prompts: Sequence[str]) -> list[float]:
    """The image-text model's cosine of each image with its prompt."""
    from dit_tools.models.clip import clip64

    return (clip64().pictures(pixels) * clip64().texts(list(prompts))).sum(1).tolist()


def saturation(pixels: Any) -> float:
    """Mean over images (B, C, H, W) of the HSV saturation of what is not white."""
    rgb = pixels[:, :3]
    high, low = rgb.max(1), rgb.min(1)
    drawn = low < 0.93
    each = [((a - b) / a.clip(1e-6))[d] for a, b, d in zip(high, low, drawn, strict=True)]
    return statistics.fmean(float(one.mean()) if one.size else 0.0 for one in each)


def recognised(pixels: Any, prompts: Sequence[str]) -> float:
    """Per cent of images whose own prompt is the nearest of all, by the image-text model."""
    from benchmarks.acceleration import found

    return 100 * float(found(pixels, prompts).mean())


def coloured(pixels: Any, prompts: Sequence[str]) -> Row:
    """Per cent of prompts with a colour whose image has it, as ``--metric binding`` says."""
    from dit_tools.core import spec
    from dit_tools.methods.metrics._colours import COLOURS, colour_shares

    least, has = spec.parse("metrics", "binding").share, []
    for image, prompt in zip(pixels, prompts, strict=True):
        if (word := prompt.split(" ")[0]) in COLOURS:
            parts = colour_shares(image)
            has.append(parts[word] >= max(least, 0.999 * max(parts.values())))
    return {"coloured": 100 * statistics.fmean(has)} if len(has) >= 10 else {}


def pairs(pixels: Any, first: Sequence[str], second: Sequence[str]) -> Row:
    """Per cent of images in which the image-text model finds both prompts, either, and the first."""
    from dit_tools.models.clip import clip64

    near = clip64().pictures(pixels) @ clip64().texts([*first, *second]).T  # (B, 2 B)
    count, order = len(first), (-near).argsort(1)
    both = [set(order[i, :2]) == {i, i + count} for i in range(count)]
    ones = [order[i, 0] == i for i in range(count)]
    twos = [order[i, 0] == i + count for i in range(count)]
    either = sum(ones) + sum(twos)
    return {
        "both": 100 * statistics.fmean(both),
        "either": 100 * either / count,
        "first": 100 * sum(ones) / max(either, 1),
    }


def variety(parts: Sequence[Any]) -> float:
    """Mean of 1 - cosine between features of two images of a part (B, C, H, W)."""
    from dit_tools.models.clip import clip64

    apart = []
    for part in parts:
        features = clip64().pictures(part.clip(0, 1))
        near, count = features @ features.T, len(features)
        apart.append(1 - (near.sum() - near.trace()) / (count * (count - 1)))
    return statistics.fmean(apart)


def scaled(pixels: Any, side: int) -> Any:
    """Square images (B, C, H, W) at another size: means of areas, or bicubic, in [0, 1]."""
    import cv2
    import numpy as np

    how = cv2.INTER_AREA if side < pixels.shape[2] else cv2.INTER_CUBIC
    made = [cv2.resize(p.transpose(1, 2, 0), (side, side), interpolation=how) for p in pixels]
    return np.stack(made).transpose(0, 3, 1, 2).clip(0, 1)


def table(rows: Sequence[Row]) -> str:
    """Aligned text: words to the left, numbers to the right."""
    lines = [list(rows[0]), *([shown(key, value) for key, value in row.items()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    words = [isinstance(value, str) for value in rows[-1].values()]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if word else cell.rjust(w) for cell, w, word in zip(line, widths, words, strict=True)
        ).rstrip()
        for line in lines
    )


FORMATS = {
    "evaluations": "{:.0f}",
    "slower": "{:.2f}x",
    "cosine": "{:.3f}",
    "lesser": "{:.3f}",
    "saturation": "{:.3f}",
    "variety": "{:.3f}",
    "SSIM": "{:.3f}",
    "found": "{:.1f} %",
    "coloured": "{:.1f} %",
    "both": "{:.1f} %",
    "either": "{:.1f} %",
    "first": "{:.0f} %",
}


def shown(key: str, value: Any) -> str:
    """A value of a column as text; nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return FORMATS.get(key, "{:.1f}").format(value)
