"""From a picture and what may change to edited latents, by one seed or by the best of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dit_tools.core.arrays import Array, precise
from dit_tools.jobs.settings import Settings
from dit_tools.media import crop as frames
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.media.latent_file import Latent
from dit_tools.methods.editing import Editing, Origin, Reference, Scene, Watch
from dit_tools.methods.seed_search import Steering
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.edit import mask
from dit_tools.tasks.invert import as_inverted

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """One edit of one picture."""

    path: str
    prompt: str
    source_prompt: str
    mask: str | None
    method: Editing
    settings: Settings
    seed: int
    references: tuple[str, ...] = ()
    steer: Steering | None = None
    mask_text: str | None = None
    outpaint: str | None = None

    @property
    def masked(self) -> bool:
        """Whether something says what may change."""
        return any(x is not None for x in (self.mask, self.mask_text, self.outpaint))

    @property
    def needs(self) -> frozenset[str]:
        """What a network must offer."""
        return self.method.info.needs | ({"blocks"} if self.mask_text is not None else frozenset())


@dataclass
class Part:
    """The part of a picture that the model works on.

    ``mask`` is the user's, ``region`` what may change by it: bool (H, W) of the picture, or None.
    ``latent`` is the file that it was inverted to, ``origin`` a session of the model to invert by.
    """

    session: Sampler
    picture: Picture
    mask: np.ndarray | None
    region: np.ndarray | None
    frame: frames.Frame
    latent: Latent | None = None
    origin: Sampler | None = None


@dataclass(frozen=True)
class Edited:
    """Latents (1, C, h, w) in float32 of the picture and of the edit, and the edit's seed.

    ``latents`` is None where nothing was changed.
    """

    x0: Array
    latents: Array | None
    seed: int


def edit_latents(part: Part, task: Task, inversion: Any) -> Edited:
    """The edit of one part of a picture, by its seed or by the one that is steered to."""
    session = part.session
    pixels, x0 = seen(session, part.picture, part.frame)
    small = selection = None
    if part.region is not None and part.mask is not None:
        patch = session.model.family.patch
        small = session.native(mask.latent_mask(part.region, part.frame, session.shape, patch))
        selection = part.frame.cut(part.mask.astype("float32")[:, :, None])[:, :, 0]
    references = [_reference(session, path) for path in task.references]
    times, inverted = session.times(), None
    if part.latent is not None:
        times, inverted = part.latent.times, as_inverted(session, part.latent)
    origin = None
    if part.origin is not None:
        origin = Origin(part.origin, seen(part.origin, part.picture, part.frame)[1])

    def run(seed: int, watch: Watch | None = None) -> Array:
        own = replace(session, seed=seed)
        scene = Scene(
            own,
            x0,
            small,
            task.source_prompt,
            task.prompt,
            times,
            own.noise(),
            inversion,
            pixels,
            part.frame,
            selection,
            references,
            watch,
            inverted,
            origin,
        )
        with scene:
            made = task.method.edit(scene)
        if made is x0:
            return x0
        made = precise(made, "float32")
        return made if small is None else x0 + small * (made - x0)

    if task.steer is None:
        seed, made = task.seed, run(task.seed)
    else:
        seeds = task.steer.seeds(task.seed)
        seed, made = task.steer.steer(run, seeds, pixels[0], session.model.codec.decode)
    same = made is x0 or bool((made == x0).all())
    return Edited(x0, None if same else made, seed)


def seen(session: Sampler, picture: Picture, frame: frames.Frame) -> tuple[Any, Array]:
    """The frame's pixels as the codec takes them, and their latents, float32."""
    layers = picture.pixels[:, :, :3] if picture.opaque else picture.pixels  # alpha of 1 everywhere says nothing
    pixels = frames.to_model(frame.cut(layers), session.model.alpha)
    return pixels, precise(session.encode(pixels), "float32")


def _reference(session: Sampler, path: str) -> Reference:
    picture = image.read(path)
    whole = frames.whole(picture.pixels.shape[:2], session.size)
    return Reference(picture, *seen(session, picture, whole))
