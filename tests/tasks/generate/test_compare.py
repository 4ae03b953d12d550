"""``--compare``: what is run, what is measured, what the record and stderr say."""

from pathlib import Path

import numpy as np
import pytest

from dit_tools.core import registry, spec
from dit_tools.core.errors import UsageError
from dit_tools.jobs.expand import Job
from dit_tools.jobs.result import GeneratedImage
from dit_tools.jobs.settings import Settings
from dit_tools.media import metadata
from dit_tools.tasks.generate.compare import compare
from dit_tools.tasks.generate.run import Options
from tests.jobs.test_record import validator
from tests.tasks.generate.test_run import go

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def drawn(value, seconds, size=16):
    pixels = np.full((3, size, size), value, "float32")
    return GeneratedImage(Job(0, "a", 0, Settings()), pixels, None, size, size, seconds)


def test_speedup_and_fidelity():
    found = compare(drawn(0.5, 2.0), drawn(0.6, 5.0), alpha=False)
    assert (found["seconds"], found["speedup"]) == (5.0, 2.5)
    assert found["psnr"] == pytest.approx(20.0, abs=0.01)
    assert 0 < found["ssim"] < 1


def test_equal_pixels_have_no_decibels_and_small_pictures_no_similarity():
    assert compare(drawn(0.5, 1.0), drawn(0.5, 1.0), alpha=False)["ssim"] == 1.0
    assert compare(drawn(0.5, 1.0, 8), drawn(0.5, 1.0, 8), alpha=False) == {"seconds": 1.0, "speedup": 1.0}


def test_the_record_holds_it_and_keeps_to_the_schema():
    plain = go("a", steps=9, output="plain.png")[2].models[0].network.calls
    cache = "output:interval=3,order=0,warmup=1"
    outcome, events, stand_in = go("a", steps=9, cache=cache, output="a.png", options=Options(compare=True))
    assert outcome.exit_code == 0
    record = metadata.read_record("a.png")
    validator("record").validate(record)
    assert spec.parse("caching", record["cache"]) == spec.parse("caching", cache)
    assert record["compare"]["psnr"] > 5
    assert events[1]["record"] == record
    calls = stand_in.models[0].network.calls
    assert len(plain) == 9  # then cached (4), warm-up (2), cached again (4), plain (9)
    assert len(calls) == 4 + 2 + 4 + 9


def test_the_picture_is_the_cached_one():
    cache = "output:interval=3,order=0,warmup=1"
    go("a", steps=9, cache=cache, output="alone.png")
    go("a", steps=9, cache=cache, output="a.png", options=Options(compare=True, metadata=False))
    from dit_tools.media import image

    pixels = [image.read(Path(name)).pixels for name in ("alone.png", "a.png")]
    assert np.array_equal(*pixels)


def test_only_the_first_batch_is_warmed_up():
    cache = "output:interval=3,order=0,warmup=1"
    _, _, stand_in = go("a", "b", steps=9, cache=cache, output="o/", options=Options(compare=True))
    assert len(stand_in.models[0].network.calls) == (4 + 2 + 4 + 9) + (4 + 9)


def test_nothing_to_compare_is_refused():
    for more in ({}, {"sweeps": ["cache=none,output"]}):
        with pytest.raises(UsageError, match="--compare: .* --cache fast"):
            go("a", options=Options(compare=True), output="o/", **more)
    assert not Path("o").exists()


def test_presets_are_specs_and_are_recorded_as_such():
    presets = registry.presets("caching")
    assert list(presets) == ["slow", "medium", "fast", "ultra"]
    made = [spec.parse("caching", word) for word in presets]
    assert made == [spec.parse("caching", text) for text in presets.values()]
    assert [m.interval for m in made] == sorted({m.interval for m in made})
    assert spec.format(made[2]) == presets["fast"]
    assert registry.presets("solvers") == {}
    with pytest.raises(UsageError, match="did you mean 'fast'"):
        spec.parse("caching", "fastt")
