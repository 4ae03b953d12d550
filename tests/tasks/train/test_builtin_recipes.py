"""Recipes by name: those of the built-in models, which an installed dit has."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dit_tools.core.errors import InputError
from dit_tools.models.loading.resolve import builtin_names
from dit_tools.tasks.train import builtin_recipes, photo_recipe
from dit_tools.tasks.train import recipe as recipes


def test_every_built_in_model_has_a_recipe_of_its_name() -> None:
    known = builtin_recipes.paths()
    assert set(builtin_names()) <= set(known)
    assert {"superres", "restore"} <= set(known)
    for name, path in known.items():
        photo = photo_recipe.is_photo(tomllib.loads(path.read_text(encoding="utf-8")))
        assert (photo_recipe.load(path) if photo else recipes.load_recipe(path)).name == name


def test_a_name_is_found_and_a_path_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builtin_recipes.find("emoji-colour").name == "recipe-colour.toml"
    assert builtin_recipes.find("mine.toml") == Path("mine.toml")
    assert builtin_recipes.find("runs/mine") == Path("runs/mine")
    with pytest.raises(InputError, match="emojy: no recipe of this name; did you mean 'emoji'"):
        builtin_recipes.find("emojy")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("")
    assert builtin_recipes.find("mine") == Path("mine")
