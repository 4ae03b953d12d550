"""``--min-psnr``, ``--calibration`` and the words of ``--cache`` in a request; peak memory."""

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.jobs import memory
from dit_tools.jobs.settings import Settings, cache_of
from dit_tools.media import image, metadata
from dit_tools.models import cache_presets
from dit_tools.tasks.generate.run import Options
from dit_tools.tasks.generate.tune_cache import largest_passing
from tests.jobs.test_record import validator
from tests.tasks.generate.test_run import go

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("least", [0, 10, 25, 49, 55])
def test_bisection_finds_the_boldest_that_passes(least):
    measured = []

    def measure(value):
        measured.append(value)
        return 50.0 - value

    found = largest_passing(range(1, 31), measure, least)
    fit = [value for value in range(1, 31) if 50.0 - value >= least]
    assert found == ((fit[-1], 50.0 - fit[-1]) if fit else None)
    assert len(measured) <= 5


def test_the_cache_is_tuned_on_the_first_picture_and_told_in_the_record():
    outcome, events, stand_in = go("a", "b", steps=12, cache="output:order=0,warmup=1", min_psnr=25, output="o/")
    assert outcome.exit_code == 0
    first, second = (event["record"] for event in events[1:3])
    validator("record").validate(first)
    assert first["tuned"] == second["tuned"] and first["cache"] == second["cache"]
    assert first["tuned"]["psnr"] >= 25 and first["tuned"]["runs"] > 2
    interval = spec.parse("caching", first["cache"]).interval
    assert 1 < interval <= 12
    shapes = stand_in.models[0].network.calls
    go("b", steps=12, cache=first["cache"], output="again.png")
    assert metadata.read_record("again.png")["cache"] == second["cache"]
    assert len(shapes) > 12 + 2 * 2  # the plain run, trials, two images


def test_a_goal_out_of_reach_ends_with_the_plain_run():
    _, events, _ = go("a", steps=8, cache="output:order=0,warmup=1", min_psnr=100, output="a.png")
    record = events[1]["record"]
    assert record["cache"] in ("none", "output:order=0,interval=1,warmup=1")
    go("a", steps=8, output="plain.png")
    one, two = (image.read(name).pixels for name in ("a.png", "plain.png"))
    assert np.array_equal(one, two)
    assert "psnr" not in record["tuned"]


def test_tuning_needs_a_cache_with_something_to_tune():
    with pytest.raises(UsageError, match="--min-psnr 30: no cache to tune; give one"):
        go("a", min_psnr=30, output="a.png")
    with pytest.raises(UsageError, match="--cache ilf has nothing to tune"):
        go("a", min_psnr=30, cache="ilf", output="a.png")
    with pytest.raises(UsageError, match="--min-psnr 0: out of range"):
        go("a", min_psnr=0, cache="output", output="a.png")


def test_every_dial_turns_a_parameter_from_exact_or_nearly_so_to_bold():
    from dit_tools.core.registry import get, names

    for name in names("caching"):
        dial = get("caching", name).dial
        if dial is not None:
            parameter = next(p for p in spec.parameters(get("caching", name)) if p.field == dial.field)
            assert list(dial.values) == sorted(set(dial.values))
            for value in dial.values:
                spec.check_value(parameter, value, name)


def test_a_calibration_becomes_a_parameter_of_the_cache():
    settings = Settings(cache="ertacache:threshold=0.2", calibration="mine.safetensors")
    assert spec.format(cache_of(settings, 20)) == "ertacache:threshold=0.2,calibration=mine.safetensors"
    for cache, word in (
        ("output", "output takes none"),
        ("none", "none takes none"),
        ("magcache:calibration=x", "names one too"),
    ):
        with pytest.raises(UsageError, match=f"--calibration mine: --cache {word}|{word}"):
            cache_of(Settings(cache=cache, calibration="mine"), 20)
    with pytest.raises(UsageError, match="with a comma; rename the file"):
        go("a", cache="ertacache", calibration="a,b", output="a.png")


def test_a_word_means_what_was_measured_on_the_model(tmp_path, monkeypatch):
    table = tmp_path / "presets.json"
    table.write_text('{"emoji": {"20": {"fast": "output:interval=5"}}}')
    monkeypatch.setattr(cache_presets, "SHIPPED", table)
    monkeypatch.setattr(cache_presets, "own_table", lambda: tmp_path / "none.json")
    assert spec.format(cache_of(Settings(cache="fast"), 20)) == "output:interval=5"
    assert Settings(cache="fast").needs() == frozenset()  # no blocks, so no torch
    assert spec.format(cache_of(Settings(cache="fast", model="other"), 20)) == "taylorseer:interval=4"


def test_guidance_whose_branches_come_and_go_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="--cache output with --guidance linear-ag: the branches"):
        go("a", cache="output", guidance="linear-ag", output="a.png")
    outcome, *_ = go("a", guidance="linear-ag", output="a.png")
    assert outcome.exit_code == 0


def test_peak_memory_is_that_of_what_happens_inside():
    with memory.measure_peak("cpu") as before:
        pass
    with memory.measure_peak("cpu") as during:
        block = np.ones(40_000_000)  # 320 MB
        del block
    with memory.measure_peak("cpu", wanted=False) as nothing:
        pass
    assert nothing.mb is None
    if before.mb is None or during.mb is None:
        assert before.mb is during.mb is None  # a system that cannot tell
    else:
        assert 250 < during.mb - before.mb < 400


def test_compare_tells_memory():
    cache = "output:interval=3,order=0,warmup=1"
    _, events, _ = go("a", steps=9, cache=cache, output="a.png", options=Options(compare=True))
    found = events[1]["record"]["compare"]
    assert ("peak_mb" in found) == ("plain_peak_mb" in found)
    assert found.get("peak_mb", 1) > 0
