"""Recoloured copies: the main colour turns, the rest stays, and held-out pairs stay unseen."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from dit_tools.tasks.train import dataset, recolour
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.dataset import Caption
from dit_tools.tasks.train.recipe import Data

APPLE = Caption("fluent3d", "red apple", ("fruit", "apple"), "Food & Drink")


def drawing(colour: str = "red", leaf: str = "green") -> np.ndarray:
    """A disc with a small leaf on transparency, uint8 (4, 64, 64), colours over white."""
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    pen = ImageDraw.Draw(image)
    pen.ellipse((10, 14, 54, 58), fill=colour)
    pen.ellipse((28, 4, 36, 12), fill=leaf)
    return np.array(image).transpose(2, 0, 1)


def data(**more: object) -> Data:
    return dataclasses.replace(Data("captions.jsonl", ("fluent3d",), 64), **more)  # type: ignore[arg-type]


def lab(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    colour = picture[:3, y, x].reshape(1, 1, 3).astype(np.float32) / 255
    return cv2.cvtColor(colour, cv2.COLOR_RGB2Lab)[0, 0]


@pytest.mark.parametrize("word", recolour.COLOURS)
def test_the_main_colour_becomes_the_asked_one_and_the_rest_stays(word: str) -> None:
    image = drawing()
    hue = recolour.main_hue(image)
    assert hue is not None and (hue < 60 or hue > 330)
    made = recolour.recolour(image, hue, word)
    lightness, chroma, angle = recolour.COLOURS[word]
    wanted = np.array([lightness, chroma * np.cos(np.deg2rad(angle)), chroma * np.sin(np.deg2rad(angle))])
    assert np.abs(lab(made, 32, 36) - wanted).max() < 12  # the sRGB gamut cuts a little
    assert np.array_equal(made[:, 4:12, 28:36], image[:, 4:12, 28:36])  # the leaf
    assert np.array_equal(made[3], image[3])
    assert (made[:3, 0, 0] == 255).all()


def test_shading_stays() -> None:
    image = drawing()
    image[:3, 14:36, :] = (image[:3, 14:36, :] * 0.7).astype(np.uint8)  # a dark upper half
    image[:3, image[3] == 0] = 255
    hue = recolour.main_hue(image)
    assert hue is not None
    made = recolour.recolour(image, hue, "blue")
    before = lab(image, 32, 50)[0] - lab(image, 32, 20)[0]
    after = lab(made, 32, 50)[0] - lab(made, 32, 20)[0]
    assert before > 10 and after == pytest.approx(recolour.SHADING * before, abs=4)


def test_a_picture_without_a_main_hue_gets_no_copies() -> None:
    grey = drawing("grey", "black")
    assert recolour.main_hue(grey) is None
    made, told = recolour.add_recoloured(grey[None], [APPLE], data(recoloured=3), 0)
    assert len(made) == len(told) == 1


def test_copies_are_named_after_their_colour_and_not_what_is_held_out() -> None:
    chosen = data(recoloured=20, not_recoloured=("blue apple", "green fruit"))
    pair = np.stack([drawing(), drawing("green", "red")])
    captions = [APPLE, dataclasses.replace(APPLE, name="yellow apple", keywords=())]
    made, told = recolour.add_recoloured(pair, captions, chosen, 0)
    names = [c.name for c in told[2:]]
    assert len(made) == len(told) and all(c.recoloured and not c.keywords for c in told[2:])
    first = names[: len(recolour.COLOURS) - 4]  # not red, yellow (real ones), blue, green (fruit)
    assert set(first) == {f"{w} apple" for w in recolour.COLOURS} - {
        "red apple",
        "yellow apple",
        "blue apple",
        "green apple",
    }
    assert "green apple" in names[len(first) :] and "blue apple" not in names
    again = recolour.add_recoloured(pair, captions, chosen, 0)
    assert np.array_equal(again[0], made) and again[1] == told
    assert [c.name for c in recolour.add_recoloured(pair, captions, chosen, 1)[1]] != [c.name for c in told]


def test_people_and_flags_keep_their_colours() -> None:
    skin = dataclasses.replace(APPLE, name="person", group="People & Body")
    assert len(recolour.add_recoloured(drawing()[None], [skin], data(recoloured=3), 0)[1]) == 1


def test_their_share_of_the_draws_is_the_recipes() -> None:
    chosen = data(recoloured=4, recoloured_share=0.25, group_weights={"Food & Drink": 3.0})
    captions = recolour.add_recoloured(drawing()[None], [APPLE], chosen, 0)[1]
    found = dataset.sampling_weights(captions, chosen)
    copies = np.array([c.recoloured for c in captions])
    assert copies.sum() == 4 and found.sum() == pytest.approx(1)
    assert found[copies].sum() == pytest.approx(0.25)


def test_a_copys_prompt_names_its_colour_and_keyword_prompts_are_as_often_as_asked() -> None:
    copy = Caption("fluent3d", "blue apple", (), "Food & Drink", recoloured=True)
    chosen = data(style_words={"fluent3d": ("3d",)}, keyword_prompts=0.3)
    prompts = [dataset.prompt(copy, chosen, random.Random(i)) for i in range(200)]
    assert all("blue apple" in text for text in prompts)
    without = ["red apple" not in dataset.prompt(APPLE, chosen, random.Random(i)) for i in range(2000)]
    assert 0.25 < np.mean(without) < 0.35


def test_sentences_of_a_folder_are_not_recoloured(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('name = "a"\n[data]\nfolder = "x"\nsize = 128\nrecoloured = 2\n')
    with pytest.raises(recipes.RecipeError, match="recoloured with folder"):
        recipes.load_recipe(path)
