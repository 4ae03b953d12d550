"""A model in plain numpy: the exact flow towards a colour that the prompt's words choose.

Its network knows the clean image, so that any solver ends on it: ``x0 = colour + texture(seed)``.
Latents are pixels. ``Counting`` says how often it was loaded and called.
"""

from __future__ import annotations

import zlib

import numpy as np

from dit_tools.core.paths import Flow
from dit_tools.jobs.models import KnownModel
from dit_tools.models.family import Family
from dit_tools.models.model import Defaults, Model

SIZE, PATCH = 16, 8
DEFAULTS = Defaults(steps=3, cfg=2.0, size=SIZE, solver="euler", schedule="uniform")
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


class NumpyFamily(Family):
    """Pixels in, pixels out; the condition is a colour (B, C)."""

    name = "numpy"

    def __init__(self, channels: int):
        super().__init__(
            {"in_channels": channels, "patch_size": PATCH, "guidance_embeds": True},
            {"block_out_channels": [1]},
            SCHEDULER,
        )

    def encode(self, pipe, prompts):
        raise NotImplementedError

    def inputs(self, x, t, condition):
        return {"x": x, "t": np.full(len(x), t, np.float32), **condition}


class NumpyNetwork:
    """Velocity of the straight line to ``colour + 0.1 tanh(x)``; NaN for the word ``nan``."""

    offers: frozenset[str] = frozenset()

    def __init__(self):
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, x, t, colour):
        self.calls.append(x.shape)
        target = colour[:, :, None, None] + 0.1 * np.tanh(x)
        return ((x - target) / np.maximum(t, 1e-3)[:, None, None, None]).astype(np.float32)

    def blocks(self):
        return []


class PixelCodec:
    """Latents are pixels in [-1, 1]."""

    def encode(self, pixels):
        return pixels * 2 - 1

    def decode(self, latents):
        return (latents / 2 + 0.5).clip(0, 1).astype(np.float32)


def colour(text: str, channels: int) -> np.ndarray:
    """The latent colour of a prompt, in [-0.9, 0.9]; NaN when the prompt is ``nan``."""
    if text == "nan":
        return np.full(channels, np.nan, np.float32)
    draw = np.random.default_rng(zlib.crc32(text.encode())).uniform(-0.9, 0.9, channels)
    return draw.astype(np.float32)


def model(alpha: bool = False, backend: str = "onnx", revision: str = "r1") -> Model:
    """A fresh model."""
    channels = 4 if alpha else 3

    def encode(prompts):
        texts = {"cond": prompts.texts, "uncond": prompts.negatives}
        return {
            branch: {"colour": np.stack([colour(text, channels) for text in texts[branch]])}
            for branch in prompts.branches
        }

    family = NumpyFamily(channels)
    assert isinstance(family.facts.path, Flow) and family.facts.kind == "flow"
    return Model(
        name="numpy",
        revision=revision,
        family=family,
        network=NumpyNetwork(),
        codec=PixelCodec(),
        encode=encode,
        to_array=lambda x: x,
        defaults=DEFAULTS,
        backend=backend,
        device="cpu",
        dtype="float32",
        alpha=alpha,
    )


class Counting:
    """Stand-ins for the look-up and the loading of models that remember what they were asked."""

    def __init__(self, **options):
        self.options, self.loaded, self.models = options, [], []

    def find(self, settings) -> KnownModel:
        return KnownModel(settings.model, self.options.get("revision", "r1"), DEFAULTS)

    def load(self, reference, wishes) -> Model:
        self.loaded.append((reference, wishes))
        self.models.append(model(**self.options))
        return self.models[-1]
