"""From an image and what may change to edited latents, by one seed or by the best of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dit_tools.core.arrays import Array, to_precision
from dit_tools.jobs.settings import Settings
from dit_tools.media import crop as frames
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.media.latent_file import Latent
from dit_tools.methods.editing import EditContext, Editing, Origin, Reference, Watch
from dit_tools.methods.seed_search import SeedSearch
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.edit import mask
from dit_tools.tasks.invert import as_inverted

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """One edit of one image."""

    path: str
    prompt: str
    source_prompt: str
    mask: str | None
    method: Editing
    settings: Settings
    seed: int
    references: tuple[str, ...] = ()
    steer: SeedSearch | None = None
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
    """The part of an image that the model works on.

    ``mask`` is the user's, ``region`` what may change by it: bool (H, W) of the image, or None.
    ``latent`` is the file that it was inverted to, ``origin`` a session of the model to invert by.
    """

    session: Sampler
    picture: Picture
    mask: np.ndarray | None
    region: np.ndarray | None
    frame: frames.CropBox
    latent: Latent | None = None
    origin: Sampler | None = None


@dataclass(frozen=True)
class Edited:
    """Latents (1, C, h, w) in float32 of the image and of the edit, and the edit's seed.

    ``latents`` is None where nothing was changed.
    """

    x0: Array
    latents: Array | None
    seed: int


def edit_latents(part: Part, task: Task, inversion: Any) -> Edited:
    """The edit of one part of an image, by its seed or by the one that is steered to."""
    session = part.session
    pixels, x0 = model_view(session, part.picture, part.frame)
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
        origin = Origin(part.origin, model_view(part.origin, part.picture, part.frame)[1])

    def run(seed: int, watch: Watch | None = None) -> Array:
        own = replace(session, seed=seed)
        context = EditContext(
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
        with context:
            made = task.method.edit(context)
        if made is x0:
            return x0
        made = to_precision(made, "float32")
        return made if small is None else x0 + small * (made - x0)

    if task.steer is None:
        seed, made = task.seed, run(task.seed)
    else:
        seeds = task.steer.seeds(task.seed)
        seed, made = task.steer.steer(run, seeds, pixels[0], session.model.codec.decode)
    same = made is x0 or bool((made == x0).all())
    return Edited(x0, None if same else made, seed)


def model_view(session: Sampler, picture: Picture, frame: frames.CropBox) -> tuple[Any, Array]:
    """The frame's pixels as the codec takes them, and their latents, float32."""
    layers = picture.pixels[:, :, :3] if picture.opaque else picture.pixels  # alpha of 1 everywhere says nothing
    pixels = frames.to_model(frame.cut(layers), session.model.alpha)
    return pixels, to_precision(session.encode(pixels), "float32")


def _reference(session: Sampler, path: str) -> Reference:
    picture = image.read(path)
    whole = frames.whole_image(picture.pixels.shape[:2], session.size)
    return Reference(picture, *model_view(session, picture, whole))
