"""The option that fits the extra step of ``--noise oms``: a tiny pipeline, a few images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from dit_tools.core.arrays import to_numpy
from dit_tools.core.size import Size
from dit_tools.methods.noise.oms import Oms
from dit_tools.models import one_more_step
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import load
from dit_tools.tasks.train.one_more_step import fit
from tests.support import pixart
from tests.support.program import dit

BRIGHT = {"black": 8, "gray": 128, "white": 250}


def pictures(folder, size):
    """Six plain images and their captions."""
    rows = []
    for name, level in BRIGHT.items():
        for i in range(2):
            Image.new("RGB", (size, size), (level + i,) * 3).save(folder / f"{name}{i}.png")
            rows.append(json.dumps({"file": f"{name}{i}.png", "caption": name}))
    (folder / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_the_option_fits_what_oms_then_starts_from(tmp_path):
    home, folder = tmp_path / "model", tmp_path / "pictures"
    folder.mkdir()
    pixart.pipeline(home)
    size = load(str(home)).defaults.size
    pictures(folder, size)
    done = dit("train", "--terminal-step", home, "--data", folder)
    assert (done.returncode, done.stdout) == (0, f"{home / one_more_step.FILE_NAME}\n"), done.stderr
    whole = (home / one_more_step.FILE_NAME).read_bytes()
    assert fit(home, folder, ridge=1e-6).read_bytes() != whole

    model = load(str(home))
    asked = ConditionRequest(tuple(BRIGHT), ("",) * 3, Size.square(size), ("cond",))
    given = model.encode(asked)
    noise = Oms().draw(model.family.latent_shape(Size.square(size)), [1, 2, 3])
    alpha, sigma = model.path.alpha(1.0), model.path.sigma(1.0)
    assert 1e-6 < alpha < 0.1  # a schedule that ends before pure noise
    started = Oms().terminal(model, given, noise)
    x0 = (started - sigma * noise) / alpha
    levels = np.array([level + 0.5 for level in BRIGHT.values()], np.float32)[:, None, None, None]
    plain = np.broadcast_to(levels / 255, (3, 3, size, size)).copy()
    wanted = to_numpy(model.codec.encode(plain))
    miss = np.abs(x0 - wanted).mean()
    spread = np.abs(wanted - wanted.mean(0)).mean()
    assert miss < 0.2 * spread  # each prompt its own images, not their common mean


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["gone", "--data", "."], 5, "gone: not a folder; give the folder of a model"),
        (["emoji", "--data", "."], 5, "emoji: not a folder"),
        (["."], 2, "--terminal-step needs images; give --data FOLDER"),
        ([".", "--data", ".", "--recipe", "emoji"], 2, "--terminal-step takes no recipe"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(tmp_path, words, code, says):
    done = dit("train", "--terminal-step", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob(one_more_step.FILE_NAME))


@pytest.mark.parametrize("name", ["emoji", "emoji-small"])
def test_built_in_models_end_at_pure_noise_and_need_no_step(name):
    model = load(name)
    noise = Oms().draw(model.family.latent_shape(Size.square(128)), [1])
    assert model.path.alpha(1.0) == 0 and Oms().terminal(model, {}, noise) is noise
