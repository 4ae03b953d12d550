"""The trainer of the wavelet codec's decoder network: it learns, and resumes to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core.errors import InputError
from dit_tools.tasks.train.codec.decoder import Recipe, Run, load_recipe

RECIPE = Recipe(width=16, blocks=1, crops=400, batch=2, side=64)


def batch(seed):
    """Coded and true crops (2, 3, 64, 64) in grey levels minus 128, and steps (2, 2, 16, 16)."""
    random = np.random.default_rng(seed)
    true = random.normal(0, 40, (2, 3, 64, 64)).astype(np.float32)
    coded = true + 8 * np.sign(true).astype(np.float32)  # what a network can undo
    return coded, true, np.full((2, 2, 16, 16), 16, np.float32)


def test_it_learns_and_a_resumed_run_goes_on_to_the_bit(tmp_path):
    torch.set_num_threads(1)
    whole = Run(RECIPE, tmp_path / "whole")
    losses = [whole.step(batch(step)) for step in range(120)]
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
    (tmp_path / "parts").mkdir()
    first = Run(RECIPE, tmp_path / "parts")
    for step in range(6):
        first.step(batch(step))
    first.save()
    again = Run(RECIPE, tmp_path / "parts")
    assert again.crops_seen == 12
    assert [again.step(batch(step)) for step in range(6, 9)] == losses[6:9]


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "recipe.toml").write_text("[decoder]\nwidth = 32\ndepth = 3\n")
    with pytest.raises(InputError, match="depth"):
        load_recipe(tmp_path / "recipe.toml")
