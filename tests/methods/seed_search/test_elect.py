"""ELECT: what is chosen, what it costs, and that the winner is the plain run of its seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.methods.seed_search.elect import _Trial, inconsistency, scale_map
from tests.support.scenes import half, of, scene_of


def elect(text="elect:candidates=3"):
    return spec.parse("seed_search", text)


class Edit:
    """``run(seed, watch)`` of an editing method on a scene, with a fresh stream each time."""

    def __init__(self, text, *family, **values):
        self.method, self.scene = of(text), scene_of(*family, **values)

    def __call__(self, seed, watch=None):
        session = self.scene.session
        own = replace(session, seed=seed)
        return self.method.edit(replace(self.scene, stream=own.noise(), watch=watch))

    @property
    def calls(self):
        return self.scene.session.calls

    def steered(self, text):
        method = elect(text)
        pixels, decode = self.scene.pixels[0], self.scene.session.model.codec.decode
        return method.steer(self, method.seeds(7), pixels, decode)


@pytest.mark.parametrize("text", ["flowedit", "img2img", "inpaint", "inversion"])
@pytest.mark.parametrize("family", ["numpy", "pixart"])
def test_the_winner_is_the_plain_run_of_its_seed(text, family):
    shape = (16, 16) if family == "numpy" else (8, 8)
    edit = Edit(text, family, "1", "2", mask=half(shape), steps=5)
    seed, made = edit.steered("elect:candidates=3")
    assert seed in (7, 8, 9)
    plain = edit(seed)
    assert bool((made == plain).all())


def test_one_candidate_is_no_steering():
    edit = Edit("img2img", steps=5)
    seed, made = edit.steered("elect:candidates=1")
    assert seed == 7 and np.array_equal(made, edit(7))


def test_calls_are_those_of_the_starts_and_of_one_ending():
    edit = Edit("img2img:strength=1", steps=10, cfg_scale=1.0, schedule="uniform")
    edit.steered("elect:candidates=4,stop=0.4")
    stop = 5  # t = 1, 0.9, 0.8, 0.7, and at 0.6 the choice
    assert edit.calls == 4 * stop + (10 - stop)
    assert edit.calls <= 0.65 * 4 * 10


def test_inconsistency_is_the_weighted_distance():
    distance = np.array([[1.0, 3.0], [5.0, 7.0]])
    assert inconsistency(distance, np.array([[1.0, 1.0], [0.0, 0.0]])) == 2.0
    assert inconsistency(distance, distance * 0) == 0.0
    assert inconsistency(distance * 0, np.ones((2, 2))) == 0.0


def test_maps_are_0_to_1_and_outliers_do_not_set_the_scale():
    values = np.linspace(1, 2, 100).reshape(10, 10)
    values[0, 0] = 1e6
    made = scale_map(values)
    assert made.min() == 0 and made.max() == 1 and 0.3 < made[5, 5] < 0.7
    assert not scale_map(np.ones((3, 3))).any()


def trial(seed, picture, edit):
    made = _Trial(seed, 0.4)
    made.x0, made.maps = picture, [edit]
    return made


def test_the_kept_background_wins_and_no_edit_at_all_does_not():
    image = np.full((3, 16, 16), 0.5, np.float32)
    edit = np.zeros((8, 8))
    edit[:, :4] = 1

    def changed(inside, outside):
        made = image[None].copy()
        made[..., :8] += inside
        made[..., 8:] += outside
        return made

    def same(x):
        return x

    trials = [trial(1, changed(0.3, 0.2), edit), trial(2, changed(0.3, 0.05), edit), trial(3, changed(0, 0), edit)]
    assert elect().choose(trials, image, same).seed == 2
    assert trials[2].score == 0 and trials[0].score > trials[1].score
    assert elect("elect:least=0").choose(trials, image, same).seed == 3
    equal = [trial(5, changed(0.3, 0.1), edit), trial(6, changed(0.3, 0.1), edit)]
    assert elect().choose(equal, image, same).seed == 5 and equal[0].score == equal[1].score


def test_the_early_score_ranks_as_the_final_one():
    """Spearman's correlation of the score at the stop and of the finished backgrounds."""
    edit = Edit("flowedit:strength=0.8,source_scale=1.5,target_scale=5.5", "emoji", "red heart", "blue heart", steps=6)
    x0 = edit.scene.x0 * 0.5
    edit.scene.x0 = x0
    decode = edit.scene.session.model.codec.decode
    edit.scene.pixels = decode(x0)
    method = elect("elect:candidates=8,least=0")
    trials = []
    for seed in method.seeds(0):
        trials.append(_Trial(seed, 0.4))
        try:
            edit(seed, trials[-1].watch)
        except Exception as stopped:  # noqa: BLE001
            assert type(stopped).__name__ == "_Stopped"
    method.choose(trials, edit.scene.pixels[0], decode)
    early = [t.score for t in trials]
    late = [float(abs(decode(edit(t.seed)) - edit.scene.pixels)[0, :3].mean()) for t in trials]
    ranks = [np.argsort(np.argsort(values)) for values in (early, late)]
    assert np.corrcoef(*ranks)[0, 1] > 0.3
