"""DiffuseHigh: draw at the model's size, enlarge, noise part-way, and draw the rest larger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.methods.highres import Correct, HighRes, SamplingRequest, Size
from dit_tools.methods.highres._bands import FILTERS, resize_bicubic, sharpen, with_low_band


@method(
    paper="arXiv:2406.18459",
    year=2024,
    title="DiffuseHigh: Training-free Progressive High-Resolution Image Synthesis through Structure Guidance",
    authors="Kim, Hwang, Zhang, et al.",
    identity={"share": 1.0},
)
class DiffuseHigh(HighRes):
    """Climb from the model's size to the one asked for, and keep the layout of the step below.

    The image of a size is decoded, enlarged (bicubic), sharpened ``g + a (g - blur(g))``, encoded
    and noised to where ``share`` of the steps are left. During the first ``guided`` of them the
    predicted clean image is decoded, its low wavelet band replaced by that of ``g``, and encoded
    again. Sizes grow by ``growth`` at most at a time.

    Costs a run at the model's size, ``share`` of one at every larger size, and ``guided`` passes of
    the autoencoder there. The network must be able to run at that size; where its positions are
    not enough, sample directly with ``ntk`` or ``time-aware``. At the model's own size and below
    it is the plain run.
    """

    share: float = param(0.3, "share of steps made at larger sizes; 1 = exact", gt=0, le=1)
    guided: int = param(5, "number of those calls whose low band is replaced", ge=0)
    wave: str = param("db4", "wavelet", choices=tuple(FILTERS))
    level: int = param(1, "number of halvings of the low band", ge=1, le=6)
    sharpness: float = param(1.0, "strength a of the sharpening; 0 = none", ge=0, le=10)
    growth: float = param(2.0, "largest factor by which the sides grow per stage", gt=1, le=16)

    def steps(self, batch: SamplingRequest) -> Iterator[Any]:
        """Raises UsageError for sides that ``level`` cannot halve."""
        first, *larger = self.sizes(batch)
        step = None
        for step in batch.run(first):
            yield step
        for size in larger:
            assert step is not None
            guide = sharpen(resize_bicubic(batch.decode(step.x), size), self.sharpness)
            correct = self._correct(batch, guide)
            for step in batch.run(size, batch.encode(guide), self.share, correct):
                yield step

    def sizes(self, batch: SamplingRequest) -> list[Size]:
        """Heights and widths from the model's size to the one asked for."""
        ratio = max(n / m for n, m in zip(batch.size, batch.native, strict=True))
        if ratio <= 1 or self.share == 1:
            return [batch.size]
        made = [batch.size]
        while ratio > 1 + 1e-9:
            ratio = max(ratio / self.growth, 1.0)
            factor = ratio / max(n / m for n, m in zip(batch.size, batch.native, strict=True))
            height, width = (max(round(n * factor / batch.multiple), 1) * batch.multiple for n in batch.size)
            made.append((height, width))
        return made[::-1]

    def _correct(self, batch: SamplingRequest, guide: Any) -> Correct:
        def correct(call: int, prediction: Prediction) -> Prediction:
            if call >= self.guided:
                return prediction
            pixels = batch.decode(prediction.x0)
            pixels = with_low_band(pixels, guide, self.wave, self.level)
            return prediction.with_x0(batch.encode(pixels))

        return correct
