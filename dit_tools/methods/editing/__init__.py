"""Editing: change what is asked of an image, and keep the rest (``dit edit --method``).

Contract: ``edit(scene) -> latents``: the edited clean latents (1, C, h, w). A ``EditContext`` has the
image's latents ``x0``, the ``mask`` at their size (1 = change, None = everywhere), the ``times``
of the run, a noise ``stream``, and ``ask("source" | "target", scale=...)``, which gives a denoiser
of that prompt. A method whose parameters change nothing returns ``scene.x0`` itself; the image's
own pixels are written then.

Example::

    @method(paper="...", title="...", year=2023)
    class Mine(Editing):
        strength: float = param(0.6, "share of the run", ge=0, le=1)

        def edit(self, scene): ...

Helpers: ``last_times`` and the other functions below, ``_source_target_pair`` (an edit next to its
source in one batch), ``_copy_paste`` (a rough edit of pixels), ``_filters``. Requests, masks and files
are in ``dit_tools.tasks.edit``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Path
from dit_tools.core.plan import Plan
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.steps import Inverted, posterior_std
from dit_tools.media.crop import CropBox
from dit_tools.media.image import Picture

if TYPE_CHECKING:
    import numpy as np


Sampler = Any
"""A ``sampling.sampler.Sampler``: the model with the plan, for as many prompts as a method asks."""
Denoiser = Any
"""A ``sampling.denoiser.Denoiser``: ``denoise(x, t) -> Prediction`` in the precision of ``x``."""
Change = Callable[[dict[str, dict[str, Array]]], dict[str, dict[str, Array]]]
"""From conditions per branch to others."""
Watch = Callable[[Denoiser, tuple[str, ...]], Any]
"""From a denoiser and the prompts of its rows to the one that the method gets."""


@dataclass(frozen=True)
class Reference:
    """Another image: as it was read, as the codec takes it (1, 3 or 4, H, W), as latents."""

    picture: Picture
    pixels: Any
    x0: Array


@dataclass(frozen=True)
class Origin:
    """Another model that the image is inverted by, and its latents there."""

    session: Sampler
    x0: Array


@dataclass
class EditContext:
    """One edit: clean latents ``x0`` (1, C, h, w), ``mask`` (1, 1, h, w) of 0 and 1 or None.

    ``source`` and ``model_info`` are prompts, ``stream.fresh()`` gives noise like ``x0``; ``inversion``
    is the method of ``--inversion``. ``pixels`` (1, 3 or 4, H, W) is what ``x0`` encodes,
    ``frame`` where it lies in the user's image, ``selection`` (H, W) the user's mask there, while
    ``mask`` is what may change. ``watch`` stands between the method and each of its denoisers.
    ``inverted`` is what ``--inversion FILE.latent`` holds, ``origin`` the ``--source-model``. A scene
    is a context: when it is left, what its denoisers attached to the network is taken off.
    """

    session: Sampler
    x0: Array
    mask: Array | None
    source: str
    target: str
    times: tuple[float, ...]
    stream: Any
    inversion: Any
    pixels: Any = None
    frame: CropBox | None = None
    selection: Any = None
    references: Sequence[Reference] = ()
    watch: Watch | None = None
    inverted: Inverted | None = None
    origin: Origin | None = None
    open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> EditContext:
        return self

    def __exit__(self, *error: object) -> None:
        """Take what the denoisers of this edit attached off the network."""
        self.open.close()

    @property
    def path(self) -> Path:
        """The model's noise path."""
        return self.session.model.path

    @property
    def solver(self) -> Any:
        """The solver of the plan, bound to the model."""
        from dit_tools.core.plan import model_info

        return self.session.plan.solver.bind(model_info(self.session.model, self.x0.shape))

    def ask(self, *which: str, scale: float | None = None, change: Change | None = None) -> Denoiser:
        """A denoiser with a row for each of these prompts; the plan's guidance, or CFG.

        ``change`` as in ``Sampler.prompted``. It is open until the edit ends.
        """
        texts = {"source": self.source, "target": self.target}
        made = self.prompted([texts[name] for name in which], scale, change=change)
        return self.watch(made, which) if self.watch else made

    def prompted(
        self,
        prompts: Sequence[str],
        scale: float | None = None,
        change: Change | None = None,
        sampler: Sampler | None = None,
    ) -> Denoiser:
        """A denoiser of any prompts, of this edit's sampler or of another one."""
        return self.open.enter_context((sampler or self.session).prompted(prompts, scale, change=change))


class Editing(ABC):
    """A rule for changing clean latents from one prompt to another.

    ``needs_mask``: it has nothing to do without one. ``references``: how many other images it
    takes, at least and at most. ``needs_prompt``: False where the source prompt will do.
    ``inverts``: whether it goes by ``--inversion``. ``guidance_scale``: the parameter that
    ``--cfg-scale`` sets; None where the method follows the plan's guidance. ``solves``: whether it
    takes the steps of ``--solver``.
    """

    info: ClassVar[MethodInfo]
    needs_mask: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = True
    inverts: ClassVar[bool] = False
    references: ClassVar[tuple[int, int]] = (0, 0)
    guidance_scale: ClassVar[str | None] = None
    solves: ClassVar[bool] = False

    @property
    def one_pass(self) -> bool:
        """Whether each of its denoisers goes through the times once and is asked once a step."""
        return False

    def compose(self, plan: Plan) -> None:
        """Raise UsageError, with the reason, for a method of the plan that cannot be used in this edit."""
        flag, needs = f"--method {self.info.name}", self.info.needs & {"blocks", "gradients"}
        options = plan.remembering()
        if not options and needs and plan.attention.info.name != "none":
            options = (f"--attention {plan.attention.info.name}",)
        if options and needs:
            raise UsageError(f"{options[0]}: {flag} looks into every call of the network", "leave one of them out")
        if options and not self.one_pass:
            raise UsageError(
                f"{options[0]}: {flag} does not go through the times once, call by call",
                "use a method that does, such as flowedit, img2img or flowchef",
            )
        if plan.tokens.whole_runs:
            name = plan.tokens.info.name
            raise UsageError(
                f"--tokens {name}: its stages begin at pure noise, and an edit at an image", "use --tokens ras"
            )

    def region(self, mask: np.ndarray) -> np.ndarray:
        """What may change when the user's mask is this, both bool (H, W) of the image."""
        return mask

    @abstractmethod
    def edit(self, scene: EditContext) -> Array:
        """The edited latents (1, C, h, w); ``scene.x0`` itself when nothing was done."""


def last_times(times: Sequence[float], strength: float) -> tuple[float, ...]:
    """The last ``strength`` of the steps: the whole run at 1, the final time alone at 0."""
    steps = len(times) - 1
    kept = min(max(round(steps * strength), 1), steps) if strength > 0 else 0
    return tuple(times[steps - kept :])


def ddim_step(p: Prediction, s: float, eta: Any = 0.0, noise: Array = 0.0) -> Array:
    """DDIM's step to ``s`` with the share ``eta`` of fresh ``noise``; numbers or maps of them."""
    spread = eta * posterior_std(p.path, p.t, s)
    kept = abs(p.path.sigma(s) ** 2 - spread * spread) ** 0.5
    return p.path.alpha(s) * p.x0 + kept * p.eps + spread * noise


def time_of_noise(path: Path, noise: float) -> float:
    """The time at which noise has the share ``noise`` of alpha + sigma: t itself on a flow.

    By it a figure that a paper gives for its own schedule is found on any other.
    """
    return path.time(math.log((1 - noise) / noise)) if 0 < noise < 1 else noise


def add_noise(context: EditContext, t: float, noise: Array) -> Array:
    """``x0`` at time ``t`` on the path, with this noise."""
    return context.path.alpha(t) * context.x0 + context.path.sigma(t) * noise
