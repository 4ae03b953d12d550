"""Scenes of an edit: a small model, random latents and pixels, and whatever a method may ask."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace

import numpy as np

from dit_tools.core import spec
from dit_tools.jobs.models import open_sampler
from dit_tools.jobs.settings import merge_settings
from dit_tools.media import crop as frames
from dit_tools.media.image import Picture
from dit_tools.methods.editing import EditContext, Reference
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.models.loading.load import load
from tests.support import numpy_model

QUICK = {"steps": 3, "cfg_scale": 2.0}


def of(text):
    """An editing method from its spec."""
    return spec.parse("editing", text)


@functools.cache
def model_of(family):
    """A model: ``numpy``, ``emoji`` or ``emoji-torch``, or a tiny random pipeline's."""
    if family == "numpy":
        return numpy_model.model()
    if family.startswith("emoji"):
        return load("emoji", backend="torch" if family.endswith("torch") else "onnx")
    pipe = importlib.import_module(f"tests.support.{family}").pipeline()
    made = model_from_pipeline(pipe, name=family, revision="0", device="cpu", dtype="float32")
    size = min(made.defaults.size, 4 * made.family.vae_scale * made.family.patch)
    made.defaults = replace(made.defaults, size=size)
    return made


def scene_of(
    family="numpy",
    source="red",
    target="blue",
    mask=None,
    inversion="edict",
    x0=None,
    pixels=None,
    references=1,
    **values,
):
    """A scene of random latents; ``mask`` (1, 1, h, w), ``pixels`` (1, 3 or 4, H, W)."""
    session = open_sampler(model_of(family), merge_settings([QUICK, values]))
    model, random = session.model, np.random.default_rng(1)
    if x0 is None:
        x0 = random.uniform(-1, 1, (1, *session.shape)).astype(np.float32)
    if pixels is None:
        layers = 4 if model.alpha else 3
        pixels = random.uniform(0, 1, (1, layers, *session.size)).astype(np.float32)
    selection = None
    if mask is not None:
        scale = model.family.vae_scale
        selection = np.asarray(mask)[0, 0].repeat(scale, axis=0).repeat(scale, axis=1)
        mask = model.to_array(mask)
    return EditContext(
        session,
        model.to_array(x0),
        mask,
        source,
        target,
        session.times(),
        session.noise(),
        spec.parse("inversion", inversion),
        pixels,
        frames.whole_image(session.size, session.size),
        selection,
        [reference_of(session) for _ in range(references)],
    )


def reference_of(session, seed=2):
    """Another image, random."""
    random = np.random.default_rng(seed)
    pixels = random.uniform(0, 1, (*session.size, 3)).astype(np.float32)
    seen = frames.to_model(pixels, session.model.alpha)
    x0 = random.uniform(-1, 1, (1, *session.shape)).astype(np.float32)
    return Reference(Picture(pixels, None, None, 8, "png"), seen, session.model.to_array(x0))


def half(shape):
    """A mask (1, 1, h, w) of the left half of latents (C, h, w)."""
    made = np.zeros((1, 1, *shape[-2:]), np.float32)
    made[..., : shape[-1] // 2] = 1
    return made
