"""Helpers of combine: one model for the first steps, the other for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.steps import Step
from dit_tools.methods.composition import Stage


def stitch_models(stage: Stage, x: Array, count: int) -> Iterator[Step]:
    """The solver's steps, the first ``count`` of them by the second model.

    A solver is a generator, so whoever is asked changes while it rests between two steps; all
    evaluations of a step go to one model. What a multistep solver remembers goes on over the
    change, as in the authors' pipelines.
    """
    first, second = stage.experts
    done = 0

    def denoise(x: Array, t: float) -> Prediction:
        return (second if done < count else first)(x, t)

    for step in stage.solver.steps(denoise, x, stage.times, stage.noise):
        done = step.index + 1
        yield step


def with_scale(guidance: Any, scale: float | None) -> Any:
    """``guidance`` with another scale; classifier-free guidance in place of one without scale."""
    if scale is None:
        return guidance
    if any(field.name == "scale" for field in fields(guidance)):
        return replace(guidance, scale=scale)
    return spec.parse("guidance", f"cfg:scale={scale!r}")
