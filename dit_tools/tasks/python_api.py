"""What ``from dit_tools import ...`` offers: load a model, draw images, edit them, save them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.plan import Plan

if TYPE_CHECKING:
    import numpy as np

    from dit_tools.models.model import Model


@dataclass(frozen=True)
class Image:
    """An image: ``pixels`` (H, W, 3 or 4), float32 in [0, 1]; the fourth channel is opacity."""

    pixels: np.ndarray

    def save(self, path: str | os.PathLike[str], quality: int | None = None) -> None:
        """Write a file whose suffix says its format. Raises UsageError for an unknown one, InputError for the disk."""
        from pathlib import Path

        from dit_tools.jobs.atomic import atomic_write
        from dit_tools.media import image

        kind, pixels = image.format_of(str(path)), self.pixels
        background = image.WHITE if kind == "jpeg" and pixels.shape[2] == 4 else None
        atomic_write(Path(path), image.encode(pixels, kind, quality=quality, background=background))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Image:
        """Read a file. Raises InputError when it is no image."""
        from pathlib import Path

        from dit_tools.media import image

        return cls(image.read(Path(path)).pixels)


def load(reference: str = "emoji", **wishes: Any) -> Model:
    """Load a model: a built-in name, a folder, a file of weights or a Hugging Face id.

    ``wishes`` are fields of ``models.loading.load.LoadOptions``, such as ``device="cuda"``,
    ``dtype="bfloat16"``, ``backend="torch"``. Raises ModelError when there is no such model.
    """
    from dit_tools.models.loading.load import LoadOptions
    from dit_tools.models.loading.load import load as load_model

    return load_model(reference, LoadOptions(**wishes))


def plan_for(model: Model, steps: int | None = None, **specs: str) -> Plan:
    """The model's own plan, with methods in place of it: ``plan_for(model, 30, cache="output")``.

    Raises UsageError for a method that does not exist, or does not go with the others.
    """
    from dit_tools.jobs.settings import merge_settings, plan_of

    given = {"steps": steps, **specs}
    settings = merge_settings([{name: value for name, value in given.items() if value is not None}])
    return plan_of(settings, model.defaults, model.family.default_guidance)


def sample(
    model: Model,
    prompts: str | Sequence[str],
    plan: Plan | None = None,
    seeds: Sequence[int] | None = None,
    negative_prompt: str = "",
    size: tuple[int, int] | None = None,
) -> list[Image]:
    """Draw an image of every prompt (default seeds: 0, 1, ...). ``size``: height and width in pixels.

    Raises UsageError for a size that the model cannot make, UnsupportedError for a method that it
    cannot carry.
    """
    from dit_tools.sampling.images import image_steps
    from dit_tools.sampling.sampler import Sampler

    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    _check_adapter(model)
    sampler = Sampler(model, plan or plan_for(model), size or (0, 0), negative_prompt=negative_prompt)
    *_, last = image_steps(sampler, sampler.request(texts), range(len(texts)) if seeds is None else seeds)
    return [Image(pixels.transpose(1, 2, 0).clip(0, 1)) for pixels in model.codec.decode(last.x)]


def edit(
    model: Model,
    image: Image,
    prompt: str,
    source_prompt: str = "",
    method: str = "flowedit",
    plan: Plan | None = None,
    seed: int = 0,
    inversion: str = "ddim",
) -> Image:
    """The image changed towards a prompt, in its own size, by a method of ``dit edit --method``.

    Raises UsageError for methods that do not go together, or that need a mask or references.
    """
    from dit_tools.core import spec
    from dit_tools.core.errors import UsageError
    from dit_tools.jobs.settings import Settings
    from dit_tools.media import crop
    from dit_tools.media.image import Picture
    from dit_tools.sampling.sampler import Sampler
    from dit_tools.tasks.edit import paste_back
    from dit_tools.tasks.edit.run_edit import Part, Task, edit_latents

    _check_adapter(model)
    chosen, inverting = spec.parse("editing", method), spec.parse("inversion", inversion)
    if chosen.needs_mask or chosen.references[0]:
        raise UsageError(f"--method {chosen.info.name}: needs a mask or references", "use the command 'dit edit'")
    plan = plan or plan_for(model)
    plan.check_runs(f"--method {chosen.info.name}")
    if chosen.inverts:
        inverting.compose(plan)
    chosen.compose(plan)
    sampler = Sampler(model, plan, seed=seed)
    picture = Picture(image.pixels, None, None, 8, "png")
    frame = crop.whole_image(image.pixels.shape[:2], sampler.size)
    task = Task("image", prompt, source_prompt, None, chosen, Settings(), seed)
    found = edit_latents(Part(sampler, picture, None, None, frame), task, inverting)
    if found.latents is None:
        return replace(image)
    edited, plain = (model.codec.decode(latents)[0] for latents in (found.latents, found.x0))
    return Image(paste_back.compose(picture, edited, frame, None, plain))


def _check_adapter(model: Model) -> None:
    if model.pipeline is not None:
        raise UnsupportedError(
            f"{model.name}: its pipeline has no adapter", "choose a model of a family that dit samples itself"
        )
