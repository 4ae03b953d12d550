"""Boundary: an attribute is changed by crossing a hyperplane between two kinds of latents."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dit_tools.core.arrays import Array, concat, convert_like, split, to_numpy
from dit_tools.core.registry import method, param
from dit_tools.core.steps import cap_times, ode_step
from dit_tools.methods.editing import EditContext, Editing, last_times
from dit_tools.methods.editing._source_target_pair import add_difference

if TYPE_CHECKING:
    import numpy as np


@method(
    paper="arXiv:2302.08357",
    year=2023,
    title="Boundary Guided Learning-Free Semantic Control with Diffusion Models",
    authors="Zhu, Wu, Deng, Russakovsky, Yan",
    identity={"shift": 0.0},
)
class Boundary(Editing):
    """Moves the inverted latents along the normal of a linear boundary, once, at the mixing step.

    A support vector machine separates latents at the level strength of two prompts, the source's
    and the target's, sampled by the model itself from the same noises; ``z' = z + shift g a`` with
    its unit normal a and the gap g between the two kinds' means on it. Both z and z' are denoised
    under the source prompt, and what they differ by is added to the image. Differs from the
    paper: labelled latents are sampled, not inverted from labelled images; the projection is
    shifted, not set, so that 0 is the image; latents only, no bottleneck features, for there is
    no bottleneck in a transformer.
    """

    guidance_scale = "scale"

    shift: float = param(
        1.0, "shift across the boundary, in units of the class distance; may be negative", ge=-20, le=20
    )
    strength: float = param(0.78, "share of the steps that are run", ge=0, le=1)
    examples: int = param(16, "number of sampled latents per class", ge=2, le=1000)
    eta: float = param(0.0, "fresh noise on the way back, 1 = the paper's", ge=0, le=1)
    scale: float = param(3.0, "guidance scale for sampling the examples", ge=0)

    def edit(self, context: EditContext) -> Array:
        """The examples' predictions down to the level, then three plain ones a step."""
        times = cap_times(last_times(context.times, self.strength), context.path)
        if self.shift == 0 or len(times) < 2:
            return context.x0
        start = cap_times(context.times, context.path)
        above = (*(t for t in start if t > times[0]), times[0])
        normal, gap = self._boundary(context, above)
        denoise = context.ask("source", "source", scale=1.0)
        return add_difference(context, times, convert_like(self.shift * gap * normal, context.x0), denoise, self.eta)

    def _boundary(self, context: EditContext, times: tuple[float, ...]) -> tuple[np.ndarray, float]:
        """Unit normal (1, C, h, w) from source to target, and how far the kinds lie apart on it."""
        import numpy as np

        denoise = context.ask("source", "target", scale=self.scale)
        found: tuple[list[Any], list[Any]] = ([], [])
        for _ in range(self.examples):
            noise = context.stream.fresh()
            x = concat([noise, noise])
            for t, s in pairwise(times):
                x = ode_step(denoise(x, t), x, t, s)
            for kind, row in zip(found, split(x, 2), strict=True):
                kind.append(to_numpy(row).reshape(-1))
        source, target = (np.stack(kind).astype(np.float64) for kind in found)
        normal = svm_normal(source, target)
        gap = float((target @ normal).mean() - (source @ normal).mean())
        return normal.reshape(context.x0.shape), gap


def svm_normal(one: np.ndarray, two: np.ndarray, c: float = 1.0, passes: int = 200) -> np.ndarray:
    """The unit normal, from ``one`` to ``two`` (N, D), of a linear support vector machine.

    Dual coordinate descent on the hinge loss (Hsieh et al. 2008), data centred and scaled to unit
    mean norm, so that ``c`` needs no tuning; deterministic. Zero where the two are the same.
    """
    import numpy as np

    x = np.concatenate([one, two])
    x = x - x.mean(axis=0)
    x = x / max(float(np.linalg.norm(x, axis=1).mean()), 1e-12)
    y = np.repeat([-1.0, 1.0], [len(one), len(two)])
    dual, squares, w = np.zeros(len(x)), np.square(x).sum(axis=1), np.zeros(x.shape[1])
    for _ in range(passes):
        before = w.copy()
        for i in np.flatnonzero(squares > 0):
            wanted = min(max(dual[i] - (y[i] * (x[i] @ w) - 1) / squares[i], 0.0), c)
            w, dual[i] = w + (wanted - dual[i]) * y[i] * x[i], wanted
        if np.abs(w - before).max() < 1e-9:
            break
    size = float(np.linalg.norm(w))
    return w / size if size > 0 else w
