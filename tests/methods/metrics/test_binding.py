"""Binding: the colour check on drawn shapes, the swaps, and both together."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.metrics import binding
from dit_tools.methods.metrics._colours import COLOURS, colour_shares
from dit_tools.methods.metrics.binding import Binding, join_prompt, split_prompt
from dit_tools.models import clip

RGB = {
    "red": (0.85, 0.1, 0.12),
    "orange": (0.95, 0.5, 0.1),
    "yellow": (0.98, 0.85, 0.15),
    "green": (0.2, 0.7, 0.25),
    "blue": (0.15, 0.35, 0.9),
    "purple": (0.5, 0.2, 0.75),
    "pink": (0.98, 0.5, 0.7),
    "brown": (0.5, 0.3, 0.15),
    "black": (0.12, 0.12, 0.14),
}


def disc(colour: str, rest: str = "", radius: float = 1.0) -> np.ndarray:
    """A disc on white, (3, 64, 64), its lower fifth of another colour where ``rest`` names one."""
    rows, columns = np.mgrid[-1.3:1.3:64j, -1.3:1.3:64j]
    made = np.ones((3, 64, 64), np.float32)
    inside = rows**2 + columns**2 < radius**2
    made[:, inside] = np.array(RGB[colour])[:, None]
    if rest:
        made[:, inside & (rows > 0.5)] = np.array(RGB[rest])[:, None]
    return made


@pytest.mark.parametrize("colour", RGB)
def test_every_colour_word_fits_its_colour_best(colour: str) -> None:
    found = colour_shares(disc(colour))
    assert set(found) == set(COLOURS) == set(RGB)
    assert found[colour] > 0.95 and found[colour] == max(found.values())
    assert colour_shares(disc(colour, radius=0.3))[colour] > 0.9  # of what is drawn, not of the image


def test_white_is_not_drawn_and_grey_has_no_colour() -> None:
    assert max(colour_shares(np.ones((3, 8, 8), np.float32)).values()) == 0
    assert max(colour_shares(np.full((3, 8, 8), 0.6, np.float32)).values()) == 0
    found = colour_shares(disc("red", "green"))
    assert 0.1 < found["green"] < 0.4 < found["red"] < 0.9


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Blue apple", ("blue", "apple")),
        ("green cat face", ("green", "cat face")),
        ("cat face with sunglasses", ("sunglasses", "cat face")),
    ],
)
def test_prompts_are_split_and_joined(text: str, pair: tuple[str, str]) -> None:
    assert split_prompt(text) == pair and join_prompt(*pair) == text.lower()


@pytest.mark.parametrize("text", ["apple", "blue", "with a hat", "beautiful apple", ""])
def test_a_prompt_without_an_attribute_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither COLOUR THING nor THING with ATTRIBUTE"):
        split_prompt(text)


class Knows:
    """A judge that reads the colour and size of a disc: large is an apple, small a key."""

    def pictures(self, a):
        found = [colour_shares(p) for p in a]
        drawn = (a.min(axis=1) < 0.93).mean(axis=(1, 2))
        return np.array(
            [[f[w] for w in COLOURS] + [2.0 * (d > 0.2), 2.0 * (d <= 0.2)] for f, d in zip(found, drawn, strict=True)]
        )

    def texts(self, texts):
        return np.array(
            [[float(w in t.split()) for w in COLOURS] + [2.0 * ("apple" in t), 2.0 * ("key" in t)] for t in texts]
        )


def measure(pictures, texts, **options) -> float:
    meter = Binding(**options).begin()
    for image, text in zip(pictures, texts, strict=True):
        meter.update(image[None], [text])
    return meter.value()


def test_right_pairs_count_and_swapped_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "clip64", Knows)
    texts = ["blue apple", "red key"]
    right = [disc("blue"), disc("red", radius=0.4)]
    swapped = [disc("red"), disc("blue", radius=0.4)]
    assert measure(right, texts) == 100
    assert measure(swapped, texts) == 0
    assert measure([right[0], swapped[1]], texts) == 50
    wrong_thing = [disc("blue", radius=0.4), disc("red")]
    assert measure(wrong_thing, texts) == 0


def test_the_colour_must_fill_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "clip64", Knows)
    texts = ["blue apple", "red key"]
    images = [disc("blue", "red"), disc("red", radius=0.4)]
    assert measure(images, texts, share=0.25) == 100
    assert measure(images, texts, share=0.95) == 50


def test_swaps_have_the_same_kind_of_attribute_and_the_thing_alone_where_it_has_one() -> None:
    meter = Binding(swaps=9).begin()
    meter._pairs = [split_prompt(t) for t in ("blue apple", "red key", "cat with halo", "dog with hat")]
    meter._colours = [dict.fromkeys(COLOURS, 0.0)] * 4
    assert set(meter._swapped(0)) == {"red apple", "blue cat", "blue dog", "blue key"}
    assert set(meter._swapped(2)) == {"cat with hat", "apple with halo", "dog with halo", "key with halo", "cat"}
    with pytest.raises(ValueError, match="two different prompts"):
        Binding().begin().value()


def test_with_the_shipped_judge_plain_shapes_of_the_right_colour_beat_the_wrong_ones() -> None:
    texts = ["red circle", "blue circle", "green circle", "red pizza"]
    discs = [disc("red"), disc("blue"), disc("green")]
    right = measure([*discs, discs[0]], texts)
    wrong = measure([discs[1], discs[2], discs[0], discs[1]], texts)
    assert right >= 50 and wrong == 0
    assert binding.split_prompt("red circle") == ("red", "circle")
