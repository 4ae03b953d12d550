"""Configs and presets, and every way in which they can be wrong."""

import re

import pytest

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs import config
from dit_tools.jobs.config import read_config, read_preset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "preset_folder", lambda: tmp_path / "presets")
    (tmp_path / "presets").mkdir()
    return tmp_path


def test_options_may_be_spelt_as_on_the_command_line(folder):
    (folder / "a.toml").write_text('cfg-scale = 3\nsize = "32x16"\nlora = ["x:0.5", "y"]\n')
    options, presets = read_config(folder / "a.toml")
    assert options == {"cfg_scale": 3.0, "width": 32, "height": 16, "lora": ("x:0.5", "y")}
    assert presets == {}


def test_presets_come_from_the_config_or_the_users_folder(folder):
    (folder / "presets/fine.toml").write_text("steps = 50\n")
    assert read_preset("fine", {}) == {"steps": 50}
    assert read_preset("fine", {"fine": {"steps": 9}}) == {"steps": 9}


BAD = {
    "steps = 0": "{}: --steps 0: out of range; give 1..1000",
    "stesp = 3": "{}: no option 'stesp'; did you mean 'steps'?",
    "steps = ": "{}: bad TOML",
    "preset = 3": "{}: 'preset' is not a table; write [preset.NAME]",
    "prompt = 3": "{}: 'prompt' is not text",
    "prompt = [3]": "{}: 'prompt' is not text",
    'solver = "eulr"': "--solver: no method 'eulr'",
    "steps = [1]": "{}: --steps [1]: not a whole number",
    "model = 1979-05-27": "{}: --model 1979-05-27: not text",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_configs_name_the_file(folder, text):
    path = folder / "a.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="^.*" + re.escape(BAD[text].format(path))):
        read_config(path)


def test_unreadable_configs(folder):
    (folder / "latin.toml").write_bytes(b'negative = "\xe9"')
    for name, message in (("none.toml", "cannot be read"), ("latin.toml", "not UTF-8")):
        with pytest.raises(InputError, match=message):
            read_config(folder / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_config(folder)
    (folder / "big.toml").write_text("#" * (config.SIZE_LIMIT + 1))
    with pytest.raises(InputError, match="over"):
        read_config(folder / "big.toml")


def test_a_missing_preset_names_the_nearest(folder):
    (folder / "presets/fine.toml").write_text("steps = 50\n")
    with pytest.raises(UsageError, match="--preset fien: no such preset; did you mean 'fine'"):
        read_preset("fien", {})
    with pytest.raises(UsageError, match="no such preset"):
        read_preset("../presets/fine", {})


def test_the_users_folder_is_that_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.preset_folder().name == "presets"
