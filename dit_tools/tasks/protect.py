"""The run of ``dit edit --protect``: images in, images out that resist editing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.models import Load, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import crop as frames
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.methods.protection import Protection, ProtectionTask
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.edit import report
from dit_tools.tasks.edit.mask import read_mask
from dit_tools.tasks.edit.task import Request, encoded, image_suffix

if TYPE_CHECKING:
    import numpy as np


UNUSED = (
    "steps",
    "cfg_scale",
    "schedule",
    "solver",
    "guidance",
    "cache",
    "calibration",
    "attention",
    "tokens",
    "highres",
    "combine",
)
"""Options of sampling, which protection has no use for."""


def plan_protection(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults.

    The prompt, none by default, is what the image shows.
    """
    given = read_values(request.values)
    settings = merge_settings([{"cfg_scale": 1.0}, given])
    assert request.protect is not None, "the command asks for protection"
    method: Protection = spec.parse("protection", request.protect)
    refused = ("method", "steer", "instructions", "strength", "inversion", "mask_text", "outpaint", "source_model")
    for name in refused:
        if getattr(request, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: --protect {method.info.name} makes no edit", "leave it out")
    for name in UNUSED:
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: --protect {method.info.name} samples no image", "leave it out")
    check_prompt(request.prompt or "", "--prompt")
    if "," in settings.seed or ".." in settings.seed or settings.num_images:
        raise UsageError("--seed: an image is protected once", "give one seed")
    found = expand_inputs([request.picture])
    many = several([request.picture], found)
    outputs = Outputs(request.output, "{stem}-safe", request.overwrite, request.skip_existing, resume=many)
    outputs.single(len(found))
    known = look_up(settings)
    known.check_size(settings)
    mask = [request.mask] if request.mask and os.path.isfile(request.mask) else []
    items = []
    for i, path in enumerate(found):
        suffix = image.suffix(settings.format) if settings.format else image_suffix(str(path))
        kind = settings.format or image.format_of(outputs.template(suffix))
        identity = {
            **settings.pixel_options(),
            "command": "edit --protect",
            "model": known.name,
            "revision": known.revision,
            "method": spec.format(method),
            "prompt": request.prompt,
            "seed": settings.seed,
            "mask": request.mask and Path(request.mask).name,
            "source": path.name,
            "format": kind,
        }
        fields = {"stem": path.stem, "index": i + 1}
        told = {"source": str(path)}
        items.append(Item(i, str(path), kind, suffix, fields, identity, (str(path), *mask), told))
    return Runner(items, ProtectImages(request, settings, method, load), outputs, listen, quiet=request.quiet)


@dataclass
class ProtectImages(Task):
    """Protects images one by one."""

    request: Request
    settings: Settings
    method: Protection
    load: Load | None
    session: Sampler | None = None
    command = "edit"
    unsent = ("session",)

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        picture, notes, kind = image.read(item.source), [], item.data
        size = picture.pixels.shape[:2]
        mask = None
        if self.request.mask is not None:
            mask = read_mask(self.request.mask, size, notes)
        notes += [picture.note] if picture.note else []
        if kind not in image.DEEP:
            notes.append(f"{kind} blurs the protection: png keeps it")
        began = time.perf_counter()
        session = self._opened()
        pixels, facts = protect_image(session, self.method, picture, mask, self.request.prompt or "")
        content = encoded(picture, pixels, kind, self.settings, notes)
        facts |= {
            "width": size[1],
            "height": size[0],
            "method": spec.format(self.method),
            "calls": session.calls,
            "seconds": round(time.perf_counter() - began, 3),
            "note": "; ".join(notes) or None,
            **report.report(picture.pixels, pixels, None),
        }
        return Result(content, facts)

    def _opened(self) -> Sampler:
        needs = self.method.info.needs
        if self.session is None:
            model = load_model(self.settings, needs, self.load)
            if needs - model.network.offers:
                raise UnsupportedError(f"--protect {self.method.info.name}: needs gradients", "use --backend torch")
            self.session = open_sampler(model, self.settings)
        return self.session


def protect_image(
    session: Sampler, method: Protection, picture: Picture, mask: Any, prompt: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """The image's pixels (H, W, C) with the protection, and how far it moves the latents.

    No sample changes by more than ``levels`` / 255. ``latent_shift`` is the mean distance of the
    latents from the image's, ``latent_shift_random`` that of random changes of the same size.
    """
    import numpy as np

    model = session.model
    frame = frames.whole_image(picture.pixels.shape[:2], session.size)
    seen = frames.to_model(frame.cut(picture.pixels), model.alpha)
    pixels = model.to_array(seen)
    hole = None if mask is None else frame.cut(mask.astype(np.float32)[:, :, None])[:, :, 0]
    encode: Callable[[Array], Array] = model.codec.encode
    with session.prompted([prompt], 1.0) as denoise:
        shield = ProtectionTask(pixels, encode, denoise, model.path, session.noise().fresh, hole)
        change = method.protect(shield)
    levels = int(getattr(method, "levels", 0))
    made = _added(picture, change.cpu().numpy()[0], frame, levels)
    if not levels:
        return made, {"latent_shift": 0.0, "latent_shift_random": 0.0}
    signs = np.random.default_rng(0).choice([-1, 1], seen[0, :3].shape).astype(np.float32)
    random = _added(picture, signs * levels / 255, frame, levels)
    shifts = [_distance(model, encode, frame, picture.pixels, other) for other in (made, random)]
    return made, dict(zip(("latent_shift", "latent_shift_random"), shifts, strict=True))


def _added(picture: Picture, change: np.ndarray, frame: frames.CropBox, levels: int) -> np.ndarray:
    """The image with a change (3, h, w) of the model's size, at its own size and depth."""
    import numpy as np

    if not levels:
        return picture.pixels
    most = levels / 255
    share = (change / most).clip(-1, 1).transpose(1, 2, 0) / 2 + 0.5
    part, rows, columns = frame.back(np.ascontiguousarray(share, dtype=np.float32))
    steps = (2 * part - 1) * most
    made = picture.pixels.copy()
    colours = 1 if made.shape[2] == 1 else 3
    if colours == 1:
        steps = steps.mean(axis=2, keepdims=True)
    depth = 255 if picture.bits <= 8 else 65535
    # Towards zero: rounding to the file's own steps must not go beyond what was promised.
    steps = np.trunc(steps * depth + np.sign(steps) * 1e-3) / depth
    before = made[rows, columns, :colours]
    made[rows, columns, :colours] = (before + steps).clip(0, 1)
    return made


def _distance(model: Any, encode: Callable[[Array], Array], frame: frames.CropBox, one: Any, two: Any) -> float:
    a, b = (encode(frames.to_model(frame.cut(x), model.alpha)) for x in (one, two))
    return round(float(abs(a - b).mean()), 4)
