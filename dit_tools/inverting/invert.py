"""The run of ``dit invert``: pictures to latent files, each checked by its own way back."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.batch.walk import expand
from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.errors import ModelError, UsageError
from dit_tools.generating.events import Listener
from dit_tools.generating.loading import Load, look_up
from dit_tools.generating.options import check_prompt, read_values
from dit_tools.generating.record import base_name, versions
from dit_tools.generating.request import Settings, merge
from dit_tools.inversion._base import Inversion, Inverted
from dit_tools.inversion._latent import SUFFIX, Latent, pack
from dit_tools.inverting.files import Batch, Item, Places
from dit_tools.inverting.frame import to_model, whole
from dit_tools.inverting.session import (
    PRECISIONS,
    Session,
    check_needs,
    load_model,
    native,
    open_session,
    plain,
    precise,
    widest,
)  # fmt: skip
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.models.model import Model
from dit_tools.sampling import start


@dataclass
class Request:
    """The command line of ``dit invert``; ``values`` holds the options of a picture."""

    pictures: Sequence[str]
    prompt: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    inversion: str = "edict"
    precision: str = "float64"
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False


def assemble(request: Request, listen: Listener, load: Load | None = None) -> Batch:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    chosen = spec.parse("inversion", request.inversion)
    settings = merge([{} if chosen.guided else {"cfg_scale": 1.0}, read_values(request.values)])
    check_prompt(request.prompt, "--prompt")
    if request.precision not in PRECISIONS:
        raise UsageError(f"--precision {request.precision[:20]}: no such choice",
                         f"use {' or '.join(PRECISIONS)}")  # fmt: skip
    if "," in settings.seed or ".." in settings.seed or settings.num_images:
        raise UsageError("--seed: a picture is inverted once", "give one seed")
    settings.needs()
    found = expand(request.pictures)
    places = Places(request.output, "{stem}", request.overwrite, request.skip_existing)
    places.single(len(found))
    look_up(settings).check_size(settings)
    fields = {"prompt": request.prompt, "seed": settings.seed}
    items = [
        Item(str(path), places.claim(SUFFIX, {"stem": path.stem, "index": i + 1, **fields}))
        for i, path in enumerate(found)
    ]
    work = _Work(request, settings, chosen, places, load)
    return Batch("invert", items, places, work.make, listen, request.quiet)


@dataclass
class _Work:
    request: Request
    settings: Settings
    chosen: Inversion
    places: Places
    load: Load | None
    session: Session | None = None

    def make(self, item: Item) -> tuple[str, dict[str, Any]]:
        picture = image.read(item.source)
        if self.session is None:
            model = load_model(self.settings, self.chosen.info.needs, self.load)
            check_needs(model, self.chosen)
            self.session = open_session(model, self.settings)
        began = time.perf_counter()
        frame = whole(picture.pixels.shape[:2], self.session.size)
        pixels = to_model(frame.cut(picture.pixels), self.session.model.alpha)
        channels = 4 if picture.alpha and self.session.model.alpha else 3
        size = picture.pixels.shape[:2]
        latent, facts = self._inverted(self.session, pixels, item, size, channels)
        seen = {"source_digest": digest(self.session, picture)}
        latent = replace(latent, record={**latent.record, **seen})
        facts["seconds"] = round(time.perf_counter() - began, 3)
        facts["note"] = picture.note or None
        content = pack(latent)
        if item.path is None:
            import sys

            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
            return "-", facts
        return str(self.places.write(item.path, content)), facts

    def _inverted(
        self, session: Session, pixels: Array, item: Item, size: tuple[int, int], channels: int
    ) -> tuple[Latent, dict[str, Any]]:
        prompt = self.request.prompt
        x0 = encode(session, pixels)
        times = self.chosen.usable(session.times(), session.model.path)
        before = session.calls
        found = invert_latents(session, self.chosen, x0, times, prompt)
        there = session.calls - before
        arrays = {"noise": plain(found.noise)}
        arrays |= {name: plain(array) for name, array in found.state.items()}
        arrays = {name: a.astype(self.request.precision) for name, a in arrays.items()}
        found = restored(session.model, arrays)  # what the file will hold
        again = way_back(session, self.chosen, found, times, [prompt])
        facts = {
            **round_trip(session, pixels, x0, again, channels),
            "calls_invert": there,
            "calls_back": session.calls - before - there,
            **statistics(plain(found.noise)),
        }
        record = {**self._record(session, item, size, times), **facts}
        return Latent(arrays, {k: v for k, v in record.items() if v is not None}), facts

    def _record(
        self, session: Session, item: Item, size: tuple[int, int], times: Sequence[float]
    ) -> dict[str, Any]:
        model, plan = session.model, session.plan
        return {
            "command": "invert",
            "dit_version": __version__,
            "source": Path(item.source).name,
            "source_width": size[1],
            "source_height": size[0],
            "prompt": self.request.prompt,
            "negative_prompt": self.settings.negative_prompt,
            "seed": int(self.settings.seed) if self.settings.seed != "-1" else None,
            "steps": plan.steps,
            "times": list(times),
            "schedule": spec.format(plan.schedule),
            "guidance": spec.format(plan.guidance),
            "inversion": spec.format(self.chosen),
            "precision": self.request.precision,
            "embedded_guidance": self.settings.embedded_guidance,
            "max_tokens": self.settings.max_tokens,
            "width": session.size[1],
            "height": session.size[0],
            "model": base_name(self.settings.model),
            "model_revision": model.revision,
            "family": model.family.name,
            "backend": model.backend,
            "dtype": model.dtype,
            "versions": versions(model.backend),
        }


def digest(session: Session, picture: Picture) -> str:
    """16 hexadecimal digits of a picture as the model sees it whole."""
    frame = whole(picture.pixels.shape[:2], session.size)
    pixels = to_model(frame.cut(picture.pixels), session.model.alpha)
    return hashlib.sha256((pixels * 255).round().astype("uint8").tobytes()).hexdigest()[:16]


def encode(session: Session, pixels: Array) -> Array:
    """Latents (1, C, h, w) of pixels as ``to_model`` gives them, in double precision where it is.

    Raises ModelError when the autoencoder gives values that are not numbers.
    """
    from dit_tools.core.arrays import all_finite

    x0 = session.model.to_array(session.model.codec.encode(pixels))
    if not all_finite(x0):
        message = "the autoencoder gave values that are not numbers"
        raise ModelError(message, "use --dtype float32, or check the model")
    return precise(x0, widest(session.model))


def stream(session: Session) -> Any:
    """The noise stream of the settings' seed, from its first draw on."""
    return _Again(*start(session.model, session.plan, session.shape, [int(session.settings.seed)]))


class _Again:
    """A stream whose first draw has been taken: it is given once more."""

    def __init__(self, first: Array, rest: Any):
        self._first, self._rest = first, rest

    def fresh(self) -> Array:
        if self._first is None:
            return self._rest.fresh()
        first, self._first = self._first, None
        return first


def invert_latents(
    session: Session, chosen: Inversion, x0: Array, times: Sequence[float], prompt: str,
    scale: float | None = None,
) -> Inverted:  # fmt: skip
    """Where ``x0`` comes from under a prompt; ``scale`` replaces the plan's guidance by CFG's."""
    return chosen.invert(session.denoiser([prompt], scale), x0, times, stream(session))


def way_back(
    session: Session, chosen: Inversion, found: Inverted, times: Sequence[float],
    prompts: Sequence[str], scale: float | None = None,
) -> Array:  # fmt: skip
    """Clean latents (1, C, h, w) of the last of ``prompts``, the first being the source's."""
    from dit_tools.core.arrays import concat

    x = concat([found.noise] * len(prompts)) if len(prompts) > 1 else found.noise
    denoise = session.denoiser(prompts, scale)
    for step in chosen.back(found.state).steps(denoise, x, times, None):
        x = step.x
    return x[-1:]


def round_trip(
    session: Session, pixels: Array, x0: Array, again: Array, channels: int
) -> dict[str, Any]:
    """How near the way back comes: latents, pixels, and pixels of the autoencoder alone.

    ``channels``: 3 leaves the opacity out, of which an opaque picture has none.
    """
    decode = session.model.codec.decode
    plain_error = abs(plain(again) - plain(x0)).max()
    single = [precise(x, "float32") for x in (x0, again)]
    floor, reached = (decibels(decode(x)[:, :channels], pixels[:, :channels]) for x in single)
    return {
        "latent_error": float(plain_error), "psnr": reached, "psnr_autoencoder": floor,
    }  # fmt: skip


def decibels(a: Array, b: Array) -> float:
    """PSNR of two batches (B, C, H, W) in [0, 1]; 200 where they are equal, for JSON's sake."""
    import numpy as np

    mse = float(np.square(a.astype(np.float64) - b).mean())
    return round(min(-10 * math.log10(mse), 200.0), 3) if mse > 0 else 200.0


def statistics(noise: Array) -> dict[str, float]:
    """How much inverted latents look like noise: mean 0, deviation 1, neighbours unlike."""
    centred = noise - noise.mean()
    variance = max(float((centred**2).mean()), 1e-24)
    neighbours = centred[..., 1:] * centred[..., :-1]
    near = float(neighbours.mean()) / variance if neighbours.size else 0.0
    return {
        "noise_mean": round(float(noise.mean()), 4),
        "noise_std": round(variance**0.5, 4),
        "noise_correlation": round(near, 4),
    }


def as_inverted(session: Session, latent: Latent) -> Inverted:
    """The arrays of a latent file as the model's own. Raises ModelError for another model's.

    Only a model of the same revision gives the same picture, so another one is refused by its hash.
    """
    record, model = latent.record, session.model
    if record["model_revision"] != model.revision:
        raise ModelError(
            f"made with revision {record['model_revision'][:40]} of {record['model'][:60]}, "
            f"this is {model.revision} of {model.name}", "give that model with -m",
        )  # fmt: skip
    if latent.noise.shape[1:] != tuple(session.shape):
        raise ModelError(
            f"latents of {latent.noise.shape[1:]}, the model's are {tuple(session.shape)}",
            "give the model that made them with -m",
        )
    return restored(model, latent.arrays)


def restored(model: Model, arrays: Mapping[str, Array]) -> Inverted:
    """Stored arrays as the model's own kind, in double precision where it has that."""
    wide = {name: native(model, array.astype(widest(model))) for name, array in arrays.items()}
    return Inverted(wide.pop("noise"), wide)
