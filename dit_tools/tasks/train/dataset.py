"""Captioned images for training, as small arrays in memory.

An image is stored as uint8 ``(4, H, W)``: red, green, blue composited over white, and alpha. White
compositing keeps the colour of transparent pixels defined, which a straight-alpha image does not.
"""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dit_tools.core.errors import InputError
from dit_tools.tasks.train import image_folder
from dit_tools.tasks.train.recipe import Data


@dataclass(frozen=True)
class Caption:
    """What is known about one image: style, exact name, loose keywords, group."""

    style: str
    name: str
    keywords: tuple[str, ...]
    group: str
    recoloured: bool = False  # a copy in another colour, whose name begins with its word


def data_root(data: Data | None = None) -> Path:
    """The folder that ``[data] captions`` is below: the recipe's ``root``, or ``$DIT_DATA``.

    Raises InputError when neither is given.
    """
    place = (data.root if data else "") or os.environ.get("DIT_DATA", "")
    if not place:
        raise InputError(
            "where the training data is was not said", "give --data FOLDER, or set DIT_DATA to the folder of the data"
        )
    return Path(place)


def read_dataset(
    data: Data, skin_tones: bool, tell: image_folder.Tell = lambda event: None
) -> tuple[np.ndarray, list[Caption]]:
    """The recipe's images, ``(N, 4, size, size)`` uint8, and their captions.

    ``skin_tones`` also takes the five skin-tone variants of a concept: near duplicates, useful for
    an autoencoder only. ``tell`` hears of what is left out. Raises InputError for missing data.
    """
    if data.folder:
        pixels, texts = image_folder.read_folder(Path(data.folder), data.size, tell, data.strict)
        return pixels, [Caption("", text, (), "") for text in texts]
    root = data_root(data)
    images, captions, archives = [], [], {}
    try:
        lines = (root / data.captions).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{root / data.captions}: cannot be read: {error.strerror}",
            "give --data, or set DIT_DATA, to the folder of the data",
        ) from None
    for line in lines:
        row = json.loads(line)
        if row["style"] not in data.styles or (row["skin_tone"] and not skin_tones):
            continue
        archive, member = row["file"].split("/", 1)
        if archive not in archives:
            archives[archive] = zipfile.ZipFile((root / data.captions).parent / archive)
        images.append(_decode(archives[archive].read(member), data.size))
        keywords = tuple(word.replace("_", " ").lower() for word in row["keywords"])
        captions.append(Caption(row["style"], row["name"].lower(), keywords, row["group"]))
    if not images:
        raise InputError(f"{root / data.captions}: no image in styles {', '.join(data.styles)}")
    return np.stack(images), captions


def _decode(content: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    alpha = image.getchannel("A").resize((size, size), Image.Resampling.LANCZOS)
    return np.concatenate([np.asarray(flat), np.asarray(alpha)[..., None]], 2).transpose(2, 0, 1)


def sampling_weights(captions: list[Caption], data: Data) -> np.ndarray:
    """Probability of drawing each image, from the recipe's group and style weights.

    Recoloured copies are ``data.recoloured_share`` of all draws.
    """
    groups, styles = data.group_weights, data.style_weights
    raw = np.array([groups.get(c.group, 1.0) * styles.get(c.style, 1.0) for c in captions])
    copies = np.array([caption.recoloured for caption in captions])
    if copies.any():
        share = data.recoloured_share
        raw[copies] *= share / raw[copies].sum()
        raw[~copies] *= (1 - share) / raw[~copies].sum()
    return raw / raw.sum()


def prompt(caption: Caption, data: Data, rng: random.Random) -> str:
    """One of the many prompts that ask for this image.

    Mostly the exact name, sometimes with keywords or only with them. The first style of the recipe
    is the default: it is named in a third of its prompts, every other style in all of them.
    Images of a user's folder have no styles: the prompt is the caption.
    """
    if not caption.style:
        return caption.name
    draw = rng.random()
    few = rng.sample(caption.keywords, min(len(caption.keywords), rng.randint(1, 3)))
    named = 1 - data.keyword_prompts
    if draw < named - 0.22 or not few:
        text = caption.name
    elif draw < named:
        text = f"{caption.name}, {', '.join(few)}"
    else:
        text = ", ".join(few)
    if rng.random() < 0.25 and draw < named:
        text = ("an " if text[0] in "aeiou" else "a ") + text
    words = data.style_words.get(caption.style)  # a style without words is never named
    if words and (caption.style != data.styles[0] or rng.random() < 0.33):
        word = rng.choice(words)
        text = f"{text}, {word}" if rng.random() < 0.5 else f"{word} {text}"
    return text
