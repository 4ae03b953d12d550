"""The cases of ``benchmarks/editing.py``: edits of emoji, each with what may change.

Pixels are those of the drawings at SIDE, prompts are in the words of the models' captions.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 128
STYLES = {"fluent3d": "", "fluentflat": "flat "}
"""Styles that the built-in models know, and how a prompt asks for them."""
GROUPS = ("Food & Drink", "Animals & Nature", "Objects", "Travel & Places", "Activities")
COLOURS = {"red": 0, "orange": 15, "yellow": 28, "green": 60, "blue": 108, "purple": 140}
"""Hues as OpenCV counts them, 0 to 179."""


@dataclass(frozen=True)
class Case:
    """One edit: pixels (SIDE, SIDE, 4) in [0, 1], prompts, and a mask of what may change."""

    kind: str
    picture: Any
    mask: Any
    source: str
    target: str


class Emoji:
    """The drawings by style and code point. Raises SystemExit where the data is not there."""

    def __init__(self, folder: Path):
        lines = folder / "emoji/captions.jsonl"
        if not lines.is_file():
            raise SystemExit(f"{lines}: no such file; set DIT_DATA to the folder of the data")
        rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        kept = [
            r
            for r in rows
            if r["style"] in STYLES and r["group"] in GROUPS and not r["skin_tone"] and len(r["name"].split()) <= 3
        ]
        self.rows = sorted(kept, key=lambda r: r["file"])
        self._zips = {s: zipfile.ZipFile(folder / f"emoji/{s}.zip") for s in STYLES}

    def drawing(self, row: Mapping[str, Any], side: int) -> np.ndarray:
        """Pixels (side, side, 4), premultiplied by nothing: straight alpha."""
        from PIL import Image

        name = row["file"].split("/", 1)[1]
        opened = Image.open(io.BytesIO(self._zips[row["style"]].read(name))).convert("RGBA")
        return np.asarray(opened.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255


def cases(emoji: Emoji, count: int, seed: int) -> list[Case]:
    """``count`` cases, a third of each kind, the same for the same seed."""
    random = np.random.default_rng(seed)
    makers = (colour, swapped, added)
    made: list[Case] = []
    while len(made) < count:
        case = makers[len(made) % 3](emoji, random)
        if case is not None and 0.02 < case.mask.mean() < 0.7:
            made.append(case)
    return made


def named(row: Mapping[str, Any], words: str = "") -> str:
    """A prompt in the words of the captions that the models are trained on."""
    return STYLES[row["style"]] + (words or row["name"]).lower()


def colour(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """Everything of the most frequent hue is turned to another hue."""
    import cv2

    row = emoji.rows[random.integers(len(emoji.rows))]
    image = emoji.drawing(row, SIDE)
    hsv = cv2.cvtColor(image[:, :, :3].copy(), cv2.COLOR_RGB2HSV)
    vivid = (image[:, :, 3] > 0.5) & (hsv[:, :, 1] > 0.4) & (hsv[:, :, 2] > 0.3)
    near = {name: vivid & _near(hsv[:, :, 0] / 2, hue) for name, hue in COLOURS.items()}
    old = max(near, key=lambda name: near[name].sum())
    if near[old].mean() < 0.08:
        return None
    new = str(random.choice([name for name in COLOURS if name != old]))
    plain = " ".join(word for word in row["name"].split() if word not in COLOURS)
    mask = cv2.dilate(near[old].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return Case("colour", image, mask, named(row, f"{old} {plain}"), named(row, f"{new} {plain}"))


def _near(hues: np.ndarray, hue: int) -> np.ndarray:
    return np.abs((hues - hue + 90) % 180 - 90) < 10


def swapped(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """A thing for another of the same style and group, where either of them is."""
    row = emoji.rows[random.integers(len(emoji.rows))]
    alike = [
        r for r in emoji.rows if r["style"] == row["style"] and r["group"] == row["group"] and r["name"] != row["name"]
    ]
    if not alike:
        return None
    other = alike[random.integers(len(alike))]
    image, wanted = emoji.drawing(row, SIDE), emoji.drawing(other, SIDE)
    mask = (image[:, :, 3] > 0.1) | (wanted[:, :, 3] > 0.1)
    return Case("object", image, mask, named(row), named(other))


def added(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """A small thing in the lower right corner, in front of what is there."""
    one, two = (emoji.rows[random.integers(len(emoji.rows))] for _ in range(2))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[SIDE // 2 :, SIDE // 2 :] = True
    target = f"{named(one)} and {two['name']}"
    return Case("added", emoji.drawing(one, SIDE), mask, named(one), target)


def write(made: Sequence[Case], folder: Path) -> None:
    """The cases as files, for ``dit edit FOLDER --instructions FOLDER/edits.jsonl``."""
    from dit_tools.media import image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, case in enumerate(made):
        names = [f"{i:03d}.png", f"{i:03d}-mask.png"]
        layers = (case.picture, case.mask[:, :, None].astype(np.float32))
        for name, pixels in zip(names, layers, strict=True):
            (folder / name).write_bytes(image.encode(pixels, "png"))
        lines.append({"picture": names[0], "mask": names[1], "source_prompt": case.source, "prompt": case.target})
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def seen(picture: np.ndarray) -> np.ndarray:
    """Colours over white, (3, SIDE, SIDE)."""
    alpha = picture[:, :, 3:]
    return (picture[:, :, :3] * alpha + 1 - alpha).transpose(2, 0, 1)
