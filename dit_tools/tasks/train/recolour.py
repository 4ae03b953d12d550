"""Recoloured copies of training images, so that colour words bind to things.

An emoji mostly has one colour: a model that saw only red strawberries cannot know what "blue" asks
of one. A copy turns the image's main hue to another colour in CIELAB, keeps shading and what has
other hues (a stalk, eyes), and takes that colour's word into its caption.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from dit_tools.tasks.train.dataset import Caption
    from dit_tools.tasks.train.recipe import Data

COLOURS = {
    "red": (50, 70, 32),
    "orange": (70, 72, 62),
    "yellow": (88, 78, 92),
    "green": (62, 60, 142),
    "blue": (54, 52, 266),
    "purple": (45, 58, 312),
    "pink": (74, 42, 352),
    "brown": (42, 34, 60),
    "black": (20, 3, 280),
    "grey": (62, 3, 280),
    "white": (92, 2, 280),
}
"""Word -> lightness, chroma and hue in degrees (CIELAB, D65) that a main colour is turned to."""
OTHER_WORDS = ("light", "dark", "gold", "golden", "silver", "gray", "colored", "coloured")
NEAR = 45.0  # degrees from the main hue that are turned whole; faded out over as many more
MIN_SHARE = 0.4  # share of the drawn pixels that must have the main hue
VIVID = 15.0  # chroma from which on a pixel has a hue
SHADING, SPREAD = 0.8, 0.5  # part of the differences of lightness, and of hue, that is kept
SKIPPED = ("People & Body", "Flags")  # skin is not of a colour word; flags are their colours


def add_recoloured(
    pixels: np.ndarray, captions: list[Caption], data: Data, seed: int
) -> tuple[np.ndarray, list[Caption]]:
    """Images, uint8 (N, 4, H, W), and captions with ``data.recoloured`` copies of each behind.

    Fewer of images that have few colours left: a name that an image has already and the pairs of
    ``data.not_recoloured`` are left out, and images without a main hue get none.
    """
    names = {caption.name for caption in captions}
    rng = random.Random(f"recolour-{seed}")
    copies, told = [], []
    for image, caption in zip(pixels, captions, strict=True):
        words = list(COLOURS)
        rng.shuffle(words)
        if caption.group in SKIPPED or (hue := main_hue(image)) is None:
            continue
        thing = without_colour(caption.name)
        good = [
            word
            for word in words
            if thing and f"{word} {thing}" not in names and not held_out(word, caption, data.not_recoloured)
        ]
        for word in good[: data.recoloured]:
            copies.append(recolour(image, hue, word))
            told.append(replace(caption, name=f"{word} {thing}", keywords=(), recoloured=True))
    return np.stack([*pixels, *copies]), [*captions, *told]


def without_colour(name: str) -> str:
    """A name without its words of colour."""
    kept = [word for word in name.split() if word not in COLOURS and word not in OTHER_WORDS]
    return " ".join(kept)


def held_out(word: str, caption: Caption, pairs: Sequence[str]) -> bool:
    """Whether "WORD THING" is of ``pairs`` for a thing in the caption's name or keywords."""
    known = set(caption.name.split())
    for pair in pairs:
        colour, _, thing = pair.partition(" ")
        if colour == word and (thing in caption.keywords or known.issuperset(thing.split())):
            return True
    return False


def main_hue(picture: np.ndarray) -> float | None:
    """The hue, in degrees, of most of an image's drawn pixels; None when there is no such hue."""
    _, chroma, hue, alpha = _lch(picture)
    drawn = alpha > 0.5
    vivid = drawn & (chroma > VIVID)
    if not vivid.any():
        return None
    counts, edges = np.histogram(hue[vivid], bins=36, range=(0, 360))
    smooth = sum(np.roll(counts, shift) for shift in range(-3, 4))
    peak = float(edges[int(np.argmax(smooth))]) + 5
    mine = vivid & (_apart(hue, peak) < NEAR)
    if mine.sum() < MIN_SHARE * drawn.sum():
        return None
    turned = np.deg2rad(hue[mine])  # their mean, on the circle: a peak of bins is a coarse one
    return float(np.rad2deg(np.arctan2(np.sin(turned).sum(), np.cos(turned).sum())) % 360)


def recolour(picture: np.ndarray, hue: float, word: str) -> np.ndarray:
    """``picture``, uint8 (4, H, W), with what has about ``hue`` turned to the colour ``word``."""
    lightness, chroma, hues, alpha = _lch(picture)
    wanted = COLOURS[word]
    part = np.clip(2 - _apart(hues, hue) / NEAR, 0, 1) * np.clip(chroma / VIVID, 0, 1)
    mine = (part > 0.5) & (alpha > 0.5)
    mean, vividness = lightness[mine].mean(), max(float(chroma[mine].mean()), 1.0)
    shaded = np.clip(wanted[0] + SHADING * (lightness - mean), 2, 99)
    turned = chroma * wanted[1] / vividness
    angle = np.deg2rad(wanted[2] + SPREAD * ((hues - hue + 180) % 360 - 180))
    to = np.stack([shaded, turned * np.cos(angle), turned * np.sin(angle)], -1)
    now = np.deg2rad(hues)
    own = np.stack([lightness, chroma * np.cos(now), chroma * np.sin(now)], -1)
    mixed = (own + part[..., None] * (to - own)).astype(np.float32)
    colour = np.clip(cv2.cvtColor(mixed, cv2.COLOR_Lab2RGB), 0, 1)
    flat = colour * alpha[..., None] + 1 - alpha[..., None]
    return np.concatenate([np.rint(flat.transpose(2, 0, 1) * 255).astype(np.uint8), picture[3:]])


def _lch(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lightness, chroma, hue in degrees and opacity, each (H, W), of the colour before white."""
    values = picture.astype(np.float32) / 255
    alpha = values[3]
    colour = (values[:3] - (1 - alpha)) / np.maximum(alpha, 1e-2)
    lab = cv2.cvtColor(np.ascontiguousarray(colour.clip(0, 1).transpose(1, 2, 0)), cv2.COLOR_RGB2Lab)
    lightness, a, b = np.moveaxis(lab, 2, 0)
    return lightness, np.hypot(a, b), np.rad2deg(np.arctan2(b, a)) % 360, alpha


def _apart(hues: np.ndarray, hue: float) -> np.ndarray:
    """Degrees between hues, 0 to 180."""
    return np.abs((hues - hue + 180) % 360 - 180)
