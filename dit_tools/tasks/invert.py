"""The run of ``dit invert``: images to latent files, each checked by its own way back."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.core import spec
from dit_tools.core.arrays import PRECISIONS, Array, to_numpy_same_dtype, to_precision
from dit_tools.core.errors import ModelError, UsageError
from dit_tools.core.steps import Inverted
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.models import Load, check_needs, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import base_name, versions
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import image
from dit_tools.media.crop import to_model, whole_image
from dit_tools.media.image import Picture
from dit_tools.media.latent_file import LATENT_SUFFIX, Latent, pack_latent
from dit_tools.methods.inversion import Inversion
from dit_tools.sampling.sampler import Sampler

ATTACHED = ("cache", "attention", "tokens", "highres")
"""Plan fields whose methods change what the network says."""


@dataclass
class Request:
    """The command line of ``dit invert``; ``values`` holds the options of an image."""

    pictures: Sequence[str]
    prompt: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    inversion: str = "edict"
    precision: str = "float64"
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False


def plan_inversion(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    chosen = spec.parse("inversion", request.inversion)
    settings = merge_settings([{} if chosen.guided else {"cfg_scale": 1.0}, read_values(request.values)])
    check_prompt(request.prompt, "--prompt")
    if request.precision not in PRECISIONS:
        raise UsageError(f"--precision {request.precision[:20]}: no such choice", f"use {' or '.join(PRECISIONS)}")
    if "," in settings.seed or ".." in settings.seed or settings.num_images:
        raise UsageError("--seed: an image is inverted once", "give one seed")
    found = expand_inputs(request.pictures)
    outputs = Outputs(
        request.output, "{stem}", request.overwrite, request.skip_existing, resume=several(request.pictures, found)
    )
    outputs.single(len(found))
    known = look_up(settings)
    known.check_size(settings)
    chosen.compose(settings.check(known.defaults, known.guidance, by="dit invert"))
    identity = {
        **settings.pixel_options(),
        "command": "invert",
        "model": known.name,
        "revision": known.revision,
        "prompt": request.prompt,
        "seed": settings.seed,
        "inversion": spec.format(chosen),
        "precision": request.precision,
    }
    fields = {"prompt": request.prompt, "seed": settings.seed}
    items = [
        Item(
            index,
            str(path),
            suffix=LATENT_SUFFIX,
            fields={"stem": path.stem, "index": index + 1, **fields},
            identity={**identity, "source": path.name},
            inputs=(str(path),),
            told={"source": str(path)},
        )
        for index, path in enumerate(found)
    ]
    return Runner(items, Invert(request, settings, chosen, load), outputs, listen, quiet=request.quiet)


@dataclass
class Invert(Task):
    """Inverts images one by one."""

    request: Request
    settings: Settings
    chosen: Inversion
    load: Load | None
    session: Sampler | None = None
    command = "invert"
    unsent = ("session",)

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        picture = image.read(item.source)
        if self.session is None:
            model = load_model(self.settings, self.chosen.info.needs, self.load)
            check_needs(model, self.chosen)
            self.session = open_sampler(model, self.settings)
        began = time.perf_counter()
        frame = whole_image(picture.pixels.shape[:2], self.session.size)
        pixels = to_model(frame.cut(picture.pixels), self.session.model.alpha)
        channels = 4 if picture.alpha and self.session.model.alpha else 3
        size = picture.pixels.shape[:2]
        latent, facts = self._inverted(self.session, pixels, item, size, channels)
        seen = {"source_digest": digest(self.session, picture)}
        latent = replace(latent, record={**latent.record, **seen})
        facts["seconds"] = round(time.perf_counter() - began, 3)
        facts["note"] = picture.note or None
        return Result(pack_latent(latent), facts)

    def _inverted(
        self, session: Sampler, pixels: Array, item: Item, size: tuple[int, int], channels: int
    ) -> tuple[Latent, dict[str, Any]]:
        prompt = self.request.prompt
        x0 = session.encode(pixels)
        times = self.chosen.usable(session.times(), session.model.path)
        before = session.calls
        found = session.invert(self.chosen, x0, times, prompt)
        there = session.calls - before
        arrays = {"noise": to_numpy_same_dtype(found.noise)}
        arrays |= {name: to_numpy_same_dtype(array) for name, array in found.state.items()}
        arrays = {name: a.astype(self.request.precision) for name, a in arrays.items()}
        found = session.restored(arrays)  # what the file will hold
        again = session.reconstruct(self.chosen, found, times, [prompt])
        facts = {
            **round_trip(session, pixels, x0, again, channels),
            "calls_invert": there,
            "calls_back": session.calls - before - there,
            **statistics(to_numpy_same_dtype(found.noise)),
        }
        record = {**self._record(session, item, size, times), **facts}
        return Latent(arrays, {k: v for k, v in record.items() if v is not None}), facts

    def _record(self, session: Sampler, item: Item, size: tuple[int, int], times: Sequence[float]) -> dict[str, Any]:
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
            **{k: v for k, v in plan.specs().items() if k in ATTACHED and v != "none"},
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


def digest(session: Sampler, picture: Picture) -> str:
    """16 hexadecimal digits of an image as the model sees it whole."""
    frame = whole_image(picture.pixels.shape[:2], session.size)
    pixels = to_model(frame.cut(picture.pixels), session.model.alpha)
    return hashlib.sha256((pixels * 255).round().astype("uint8").tobytes()).hexdigest()[:16]


def round_trip(session: Sampler, pixels: Array, x0: Array, again: Array, channels: int) -> dict[str, Any]:
    """How near the way back comes: latents, pixels, and pixels of the autoencoder alone.

    ``channels``: 3 leaves the opacity out, of which an opaque image has none.
    """
    decode = session.model.codec.decode
    plain_error = abs(to_numpy_same_dtype(again) - to_numpy_same_dtype(x0)).max()
    single = [to_precision(x, "float32") for x in (x0, again)]
    floor, reached = (decibels(decode(x)[:, :channels], pixels[:, :channels]) for x in single)
    return {"latent_error": float(plain_error), "psnr": reached, "psnr_autoencoder": floor}


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


def as_inverted(sampler: Sampler, latent: Latent) -> Inverted:
    """The arrays of a latent file as the model's own. Raises ModelError for another model's.

    Only a model of the same revision gives the same image, so another one is refused by its hash.
    """
    record, model = latent.record, sampler.model
    if record["model_revision"] != model.revision:
        raise ModelError(
            f"made with revision {record['model_revision'][:40]} of {record['model'][:60]}, "
            f"this is {model.revision} of {model.name}",
            "give that model with -m",
        )
    if latent.noise.shape[1:] != tuple(sampler.shape):
        raise ModelError(
            f"latents of {latent.noise.shape[1:]}, the model's are {tuple(sampler.shape)}",
            "give the model that made them with -m",
        )
    return sampler.restored(latent.arrays)
