"""Layers of options and the plan that they make."""

import pytest

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.jobs.options import read_values
from dit_tools.jobs.settings import Settings, check_offers, guidance_of, merge_settings, plan_of, size_of
from dit_tools.models.model import Defaults
from tests.support import numpy_model

DEFAULTS = Defaults(steps=20, cfg=4.5, size=64, solver="heun", schedule="uniform")


def merged(*layers):
    return merge_settings([read_values(layer) for layer in layers])


def test_later_layers_win_and_others_stay():
    settings = merged({"steps": 10, "seed": 7}, {"steps": 20}, {"width": 32})
    assert (settings.steps, settings.seed, settings.width, settings.height) == (20, "7", 32, None)


def test_a_stronger_scale_replaces_a_weaker_one_in_either_spelling():
    assert merged({"guidance": "cfg:scale=5,rescale=0.5"}, {"cfg_scale": 3}).guidance == ("cfg:rescale=0.5")
    settings = merged({"cfg_scale": 3}, {"guidance": "cfg:scale=5"})
    assert settings.cfg_scale is None and settings.guidance == "cfg:scale=5"
    assert merged({"cfg_scale": 3}, {"guidance": "none"}).cfg_scale is None
    assert merged({"guidance": "none"}, {"cfg_scale": 3}).guidance is None
    assert merged({"cfg_scale": 3}, {"guidance": "apg"}).cfg_scale == 3


def test_transparent_and_background_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        merged({"transparent": True}, {"background": "red"})


@pytest.mark.parametrize(
    "settings, default, scale, expected",
    [
        (Settings(), "cfg", 4.5, "cfg:scale=4.5"),
        (Settings(cfg_scale=3.0), "cfg", 4.5, "cfg:scale=3.0"),
        (Settings(cfg_scale=3.0), "cfg:norm=row", 4.5, "cfg:norm=row,scale=3.0"),
        (Settings(guidance="apg"), "cfg", 4.5, "apg:scale=4.5"),
        (Settings(guidance="apg:scale=2"), "cfg", 4.5, "apg:scale=2"),
        (Settings(guidance="none"), "cfg", 4.5, "none"),
        (Settings(), "cfg", 1.0, "cfg:scale=1.0"),
        (Settings(guidance="apg"), "cfg", 1.0, "apg"),
    ],
)
def test_guidance_takes_its_scale_from_the_nearest_source(settings, default, scale, expected):
    assert guidance_of(settings, default, scale) == spec.parse("guidance", expected)


def test_the_plan_fills_in_the_models_defaults():
    plan = plan_of(Settings(steps=5, solver="euler"), DEFAULTS, "cfg")
    assert plan.steps == 5 and plan.guidance.scale == 4.5
    assert plan.specs() == {
        "schedule": "uniform",
        "solver": "euler",
        "guidance": "cfg:scale=4.5",
        "noise": "philox",
        "cache": "none",
    }


def test_a_lone_side_leaves_the_other_to_the_model():
    assert size_of(Settings(width=32), 64) == (64, 32)


def test_needs_are_known_without_a_model():
    assert Settings(cache="taylorseer").needs() == {"stack"}
    assert Settings(cache="taylorseer:level=module").needs() == {"blocks"}
    assert Settings().needs() == frozenset()


def test_transparency_needs_a_model_with_alpha():
    check_offers(Settings(transparent=True), numpy_model.model(alpha=True))
    with pytest.raises(UnsupportedError, match="--transparent: numpy was not trained for"):
        check_offers(Settings(transparent=True), numpy_model.model())
    with pytest.raises(UnsupportedError, match="--background"):
        check_offers(Settings(background="#ffffff"), numpy_model.model())


def test_embedded_guidance_needs_a_model_that_takes_it():
    model = numpy_model.model()
    check_offers(Settings(embedded_guidance=3.5), model)
    model.family.transformer = {}
    with pytest.raises(UnsupportedError, match="--embedded-guidance 3.5: numpy takes no guidance"):
        check_offers(Settings(embedded_guidance=3.5), model)


def test_what_does_not_change_pixels_is_not_in_the_manifest_key():
    one = Settings(seed="1", num_images=3, device="cpu").pixel_options()
    assert one == Settings().pixel_options() and "steps" in one
