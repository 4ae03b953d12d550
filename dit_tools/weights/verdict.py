"""What packing cost: the same prompts and seeds through the full and the packed network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dit_tools.metrics.psnr import Psnr
from dit_tools.metrics.ssim import WINDOW, Ssim
from dit_tools.models.model import Model
from dit_tools.weights import probing


@dataclass(frozen=True)
class Verdict:
    """``psnr`` (dB, peak 1) and ``ssim`` over pictures, against those of the full network.

    ``loss`` is the rise in dB of the denoising error on the full network's own pictures: how much
    worse the packed network tells noise from picture. ``seconds``: median of a picture's sampling.
    """

    prompts: tuple[str, ...]
    steps: int
    psnr: float
    psnr_worst: float
    ssim: float
    loss: float
    seconds_full: float
    seconds_packed: float

    def to_json(self) -> dict[str, Any]:
        """For the card; infinite PSNR and SSIM of pictures below 11 pixels are null."""
        return {
            key: (round(v, 4) if math.isfinite(v) else None) if isinstance(v, float) else v
            for key, v in asdict(self).items()
        }


def compare(
    full: Model, packed: Model, prompts: Sequence[str], steps: int | None = None
) -> Verdict:
    """Draw every prompt twice. Raises ModelError when a network gives NaN."""
    import numpy as np

    ours = list(probing.draw(full, prompts, steps))
    theirs = list(probing.draw(packed, prompts, steps))
    a, b = (np.stack([one.pixels for one in many]) for many in (ours, theirs))
    found = [float(value) for value in Psnr().of(a, b)]
    probes = probing.probes(full, ours)
    noise = [probe.noise for probe in probes]
    errors = [
        probing.mean_square(probing.predicted(m, probing.reconditioned(probes, drawn)), noise)
        for m, drawn in ((full, ours), (packed, theirs))
    ]
    return Verdict(
        tuple(prompts),
        steps or full.defaults.steps,
        statistics.fmean(found),
        min(found),
        Ssim().mean(a, b) if min(a.shape[2:]) >= WINDOW else math.nan,
        probing.loss_db(*errors),
        statistics.median(one.seconds for one in ours),
        statistics.median(one.seconds for one in theirs),
    )
