"""What packing cost: the same prompts and seeds through the full and the packed network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dit_tools.methods.metrics.psnr import Psnr
from dit_tools.methods.metrics.ssim import WINDOW, Ssim
from dit_tools.models.model import Model
from dit_tools.tasks.quantize import denoising_error


@dataclass(frozen=True)
class QualityReport:
    """``psnr`` (dB, peak 1) and ``ssim`` over images, against those of the full network.

    ``loss`` is the rise in dB of the denoising error on the full network's own images: how much
    worse the packed network tells noise from image. ``seconds``: median of an image's sampling.
    ``found_full``, ``found_packed``: percent of images whose own prompt the image-text model finds nearest
    among the prompts and sixteen others; NaN for models that the image-text model does not know.
    """

    prompts: tuple[str, ...]
    steps: int
    psnr: float
    psnr_worst: float
    ssim: float
    loss: float
    seconds_full: float
    seconds_packed: float
    found_full: float = math.nan
    found_packed: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """For the card; infinite PSNR and SSIM of images below 11 pixels are null."""
        return {
            key: (round(v, 4) if math.isfinite(v) else None) if isinstance(v, float) else v
            for key, v in asdict(self).items()
        }


def compare_networks(full: Model, packed: Model, prompts: Sequence[str], steps: int | None = None) -> QualityReport:
    """Draw every prompt twice. Raises ModelError when a network gives NaN."""
    import numpy as np

    ours = list(denoising_error.sample_prompts(full, prompts, steps))
    theirs = list(denoising_error.sample_prompts(packed, prompts, steps))
    a, b = (np.stack([one.pixels for one in many]) for many in (ours, theirs))
    found = [float(value) for value in Psnr().of(a, b)]
    probes = denoising_error.probes(full, ours)
    noise = [probe.noise for probe in probes]
    errors = [
        denoising_error.mean_square(
            denoising_error.predict_noise(m, denoising_error.with_conditions(probes, drawn)), noise
        )
        for m, drawn in ((full, ours), (packed, theirs))
    ]
    return QualityReport(
        tuple(prompts),
        steps or full.defaults.steps,
        statistics.fmean(found),
        min(found),
        Ssim().mean(a, b) if min(a.shape[2:]) >= WINDOW else math.nan,
        denoising_error.loss_db(*errors),
        statistics.median(one.seconds for one in ours),
        statistics.median(one.seconds for one in theirs),
        *((_found(a, prompts), _found(b, prompts)) if clip64_knows(full) else ()),
    )


def clip64_knows(model: Model) -> bool:
    """Whether the image-text model has seen the likes of a model's images: the built-in ones are emoji."""
    return "default_cfg" in model.notes and model.family.name != "dit"


def _found(pixels: Any, prompts: Sequence[str]) -> float:
    """Percent of images (B, C, H, W) whose prompt is the nearest (AttnGAN's R-precision)."""
    from dit_tools.models.clip import clip64

    others = [word for word in denoising_error.PROMPT_WORDS if word not in prompts]
    features, texts = clip64().pictures(pixels[:, :3]), clip64().texts([*prompts, *others])
    likeness = features @ texts.T
    best = likeness.max(1)
    own = [likeness[i, list(prompts).index(prompt)] for i, prompt in enumerate(prompts)]
    return 100 * sum(float(o) >= float(b) for o, b in zip(own, best, strict=True)) / len(prompts)
