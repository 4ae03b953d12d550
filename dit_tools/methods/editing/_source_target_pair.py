"""An edit that runs next to its source, in one batch.

``invert_pair``: the source row is held to its own trajectory; it is inverted by DDIM without guidance and
stored, and in the way back a method looks at its row of every network call and takes from it what
the edit should keep. ``add_difference``: both rows run freely, and what they differ by is the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, concat, split, to_precision
from dit_tools.core.steps import ode_step
from dit_tools.methods.editing import Denoiser, EditContext, ddim_step

Blend = Callable[[int], Array | None]
"""From the number of steps done to a mask (1, 1, h, w) of what may differ from the source."""


@dataclass
class SourceTargetPair:
    """The source's ``trajectory`` of clean to noisy latents, and a denoiser of both rows.

    ``length``: text positions of the conditions, 0 where there are none.
    """

    scene: EditContext
    times: tuple[float, ...]
    trajectory: Sequence[Array]
    denoise: Denoiser
    length: int

    def run(self, control: AbstractContextManager[Any], blend: Blend | None = None) -> Array:
        """The target's clean latents (1, C, h, w), float32; a mask holds from step to step."""
        mask = self.scene.mask
        x = concat([self.trajectory[-1]] * 2)
        with control:
            for i, (t, s) in enumerate(pairwise(self.times)):
                ahead = ode_step(self.denoise(x, t), x, t, s)[1:]
                source = self.trajectory[-2 - i]
                for kept in (blend(i + 1) if blend else None, mask):
                    ahead = ahead if kept is None else source + kept * (ahead - source)
                x = concat([source, ahead])
        return to_precision(x[1:], "float32")


def invert_pair(
    context: EditContext, times: tuple[float, ...], source_scale: float, target_scale: float
) -> SourceTargetPair:
    """The source inverted over ``times``: one network call a step."""
    x0 = to_precision(context.x0, context.session.precision)
    inversion = spec.parse("inversion", "ddim:refine=0")
    passed = inversion.trajectory(context.ask("source", scale=source_scale), x0, times)
    lengths = [0]

    def look(conditions: dict[str, dict[str, Array]]) -> dict[str, dict[str, Array]]:
        states = conditions["cond"].get("encoder_hidden_states")
        if states is not None and hasattr(states, "shape"):
            lengths[0] = int(states.shape[1])
        return conditions

    denoise = context.ask("source", "target", scale=target_scale, change=look)
    return SourceTargetPair(context, times, passed, denoise, lengths[0])


def add_difference(
    context: EditContext, times: tuple[float, ...], shift: Array, denoise: Denoiser, eta: float = 0.0
) -> Array:
    """``x0`` and what the run from shifted inverted latents differs by from the run without.

    ``shift`` (1, C, h, w) is kept within the mask; the rows of ``denoise`` are the plain and the
    shifted. ``eta``: fresh noise on the way back, the same for both. Two predictions a step.
    """
    x = spec.parse("inversion", "ddim:refine=0").invert(context.ask("source", scale=1.0), context.x0, times).noise
    both = concat([x, x + (shift if context.mask is None else shift * context.mask)])
    for t, s in pairwise(times):
        fresh = concat([context.stream.fresh()] * 2) if eta else 0.0
        p = denoise(both, t)
        both = ddim_step(p, s, eta, fresh) if eta else ode_step(p, both, t, s)
    plain, edited = split(both, 2)
    return context.x0 + (edited - plain)


def token_count(context: EditContext) -> int:
    """Image tokens of the scene's latents."""
    return context.session.model.family.tokens(context.x0.shape)
