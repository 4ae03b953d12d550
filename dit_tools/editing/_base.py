"""The verb of the room, and what a method may ask of the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path
from dit_tools.core.registry import MethodInfo
from dit_tools.inverting.session import Precise, Session


@dataclass
class Scene:
    """One edit: clean latents ``x0`` (1, C, h, w), ``mask`` (1, 1, h, w) of 0 and 1 or None.

    ``source`` and ``target`` are prompts, ``stream.fresh()`` gives noise like ``x0``; ``inversion``
    is the method of ``--inversion``.
    """

    session: Session
    x0: Array
    mask: Array | None
    source: str
    target: str
    times: tuple[float, ...]
    stream: Any
    inversion: Any

    @property
    def path(self) -> Path:
        """The model's noise path."""
        return self.session.model.path

    @property
    def solver(self) -> Any:
        """The solver of the plan, bound to the model."""
        from dit_tools.core.plan import target

        return self.session.plan.solver.bind(target(self.session.model, self.x0.shape))

    def ask(self, *which: str, scale: float | None = None) -> Precise:
        """A denoiser with a row for each of these prompts; the plan's guidance, or CFG."""
        texts = {"source": self.source, "target": self.target}
        return self.session.denoiser([texts[name] for name in which], scale)


class Editing(ABC):
    """A rule for changing clean latents from one prompt to another.

    ``needs_mask``: it has nothing to do without one.
    """

    info: ClassVar[MethodInfo]
    needs_mask: ClassVar[bool] = False

    @abstractmethod
    def edit(self, scene: Scene) -> Array:
        """The edited latents (1, C, h, w); ``scene.x0`` itself when nothing was done."""


def late(times: Sequence[float], strength: float) -> tuple[float, ...]:
    """The last ``strength`` of the steps: the whole run at 1, the final time alone at 0."""
    steps = len(times) - 1
    kept = min(max(round(steps * strength), 1), steps) if strength > 0 else 0
    return tuple(times[steps - kept :])


def noised(scene: Scene, t: float, noise: Array) -> Array:
    """``x0`` at time ``t`` on the path, with this noise."""
    return scene.path.alpha(t) * scene.x0 + scene.path.sigma(t) * noise
