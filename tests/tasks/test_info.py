"""Facts of image files."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from dit_tools.core.errors import InputError
from dit_tools.media import image
from dit_tools.tasks.info import as_lines, escape_control, inspect_file, profile_name
from tests.jobs.test_record import validator


def write(path, shape=(6, 8, 3), **options):
    name = image.format_of(path)
    path.write_bytes(image.encode(np.full(shape, 0.25, np.float32), name, **options))
    return str(path)


def test_facts_keep_to_the_schema(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    record = {"version": 1, "prompt": "a", "seed": 1, "steps": 2}
    facts = inspect_file(write(tmp_path / "a.png", (6, 8, 4), bits=16, icc=srgb, record=record))
    validator("info").validate(facts)
    assert (facts["width"], facts["height"], facts["bits"], facts["alpha"]) == (8, 6, 16, True)
    assert facts["icc"] == "sRGB built-in" and facts["record"] == record
    assert facts["parameters"] == "a\nSteps: 2, Seed: 1"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_every_format(tmp_path, suffix):
    facts = inspect_file(write(tmp_path / f"a{suffix}"))
    validator("info").validate(facts)
    assert facts["format"] == image.format_of(f"a{suffix}") and facts["record"] is None


def test_cut_off_files_are_found_out(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="a.png"):
        inspect_file(str(path))


def test_lines_for_people(tmp_path):
    path = write(tmp_path / "a.png", record={"version": 1, "prompt": "a\x1b[31m", "x": {"y": [1]}})
    shown = as_lines(inspect_file(path))
    assert shown[0].endswith("a.png: png, 8x6, 8 bits, opaque, " + shown[0].split(", ")[-1])
    assert "    x: y 1" in shown and not any("\x1b" in line for line in shown)
    assert escape_control("a\x1b\x9b\u202eb") == "a\\x1b\\x9b\\u202eb"


def test_damaged_profiles():
    assert profile_name(b"nonsense") == "unreadable" and profile_name(None) is None
