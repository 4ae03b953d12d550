"""ELECT: the seed that keeps the background is found after part of the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core.arrays import Array, to_numpy
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.methods.seed_search import Denoise, EditOneSeed, SeedSearch


@method(
    paper="arXiv:2504.13490",
    year=2025,
    title="Early Timestep Zero-Shot Candidate Selection for Instruction-Guided Image Editing",
    authors="Kim, Lee, Cho, Jo, Jung, Kim, Yang",
    identity={"candidates": 1},
)
class Elect(SeedSearch):
    """Runs every seed until ``stop`` of its noise is gone, and finishes the one that keeps most.

    Where the guided branches differ is where the edit is: ``|eps(prompt) - eps(none)|`` summed over
    channels, outliers clipped, scaled to 0..1 and squared, is averaged over the early steps of all
    seeds to a map m. The score is ``sum |I - x0| (1 - m) / sum (1 - m)`` of the predicted image
    at the stop, and the lowest wins; one that hardly changes where m is high (less than ``least``
    on average) loses to those that do. Steps of the winner are not repeated. Without guidance m
    comes from ``|x0 - I|``. Differs from the paper: prompts are not rewritten; maps are scaled per
    step and seed, as candidates run one after another.
    """

    candidates: int = param(6, "number of seeds that are tried; 1 = no search", ge=1, le=1000)
    stop: float = param(0.4, "fraction of the noise that is removed when the choice is made", gt=0, le=0.95)
    least: float = param(0.02, "smallest change, 0..1, that counts as an edit", ge=0, le=1)

    def seeds(self, first: int) -> tuple[int, ...]:
        """``candidates`` seeds, counting up."""
        return tuple(first + i for i in range(self.candidates))

    def steer(
        self, run: EditOneSeed, seeds: Sequence[int], pixels: Array, decode: Callable[[Array], Array]
    ) -> tuple[int, Array]:
        """The calls of every seed up to the stop, and those of one from there on."""
        if len(seeds) == 1:
            return seeds[0], run(seeds[0])
        trials: list[_Trial] = []
        for seed in seeds:
            trial = _Trial(seed, self.stop)
            try:
                run(seed, trial.watch)
            except _Stopped:
                pass
            trials.append(trial)
        best = self.choose(trials, pixels, decode)
        return best.seed, run(best.seed, best.repeat)

    def choose(self, trials: Sequence[_Trial], pixels: Array, decode: Callable[[Array], Array]) -> _Trial:
        """The trial with the lowest background inconsistency among those that edit at all."""
        import numpy as np

        for trial in trials:
            trial.seen = np.abs(decode(trial.x0)[0, :3] - pixels[:3]).mean(axis=0) * 2
        maps = [m for trial in trials for m in trial.maps]
        shared = _grown(np.mean(maps, axis=0), pixels.shape[1:]) if maps else None
        for trial in trials:
            edit = scale_map(trial.seen) ** 2 if shared is None else shared
            trial.score = inconsistency(trial.seen, 1 - edit)
            trial.change = inconsistency(trial.seen, edit)
        edited = [trial for trial in trials if trial.change >= self.least]
        return min(edited or trials, key=lambda trial: trial.score)


class _Stopped(Exception):
    """A trial is far enough."""


@dataclass
class _Trial:
    """One seed's run up to the stop: answers, so that they can be given again, and maps."""

    seed: int
    stop: float
    answers: list[Prediction] = field(default_factory=list)
    maps: list[Any] = field(default_factory=list)
    x0: Any = None
    seen: Any = None
    score: float = 0.0
    change: float = 0.0
    highest: float = 0.0
    last: float = 0.0

    def watch(self, denoise: Any, names: tuple[str, ...]) -> Denoise:
        """The denoiser, recorded; raises _Stopped at the stop, when the target has answered."""
        if "target" in names:
            denoise.listen = self._listen

        def asked(x: Array, t: float) -> Prediction:
            falling = t < self.last
            self.highest, self.last = max(self.highest, t), t
            p = denoise(x, t)
            self.answers.append(p)
            if "target" in names:
                self.x0 = p.x0[-1:]
                if falling and t <= (1 - self.stop) * self.highest:
                    raise _Stopped
            return p

        return asked

    def _listen(self, branches: tuple[Any, ...], predictions: tuple[Prediction, ...]) -> None:
        """The map of one step: where two branches disagree."""
        if len(predictions) > 1:
            apart = to_numpy(predictions[0].eps[-1:] - predictions[1].eps[-1:])
            self.maps.append(scale_map(abs(apart[0]).sum(axis=0)) ** 2)

    def repeat(self, denoise: Any, names: tuple[str, ...]) -> Denoise:
        """The denoiser that first gives the recorded answers again."""

        def asked(x: Array, t: float) -> Prediction:
            return self.answers.pop(0) if self.answers else denoise(x, t)

        return asked


def scale_map(values: Array) -> Array:
    """A map (h, w) with outliers clipped at the third quartile + 1.5 of the range, as 0..1."""
    import numpy as np

    low, high = np.quantile(values, [0.25, 0.75])
    clipped = np.clip(values, 0, high + 1.5 * (high - low))
    span = float(clipped.max() - clipped.min())
    return (clipped - clipped.min()) / span if span > 0 else clipped * 0.0


def inconsistency(distance: Array, weights: Array) -> float:
    """Mean distance (H, W) by weights (H, W) of 0..1; 0 without any."""
    total = float(weights.sum())
    return float((distance * weights).sum()) / total if total > 0 else 0.0


def _grown(edit: Array, size: tuple[int, ...]) -> Array:
    import cv2
    import numpy as np

    grown = cv2.resize(edit.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return grown.clip(0, 1)
