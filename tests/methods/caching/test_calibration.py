"""Files of dit calibrate: their key, finding them again, refusing others; and what reads them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.methods.caching.ertacache import Ertacache
from dit_tools.models import calibration
from dit_tools.models.calibration import Calibration, find_calibration, key_of, read_calibration, table
from tests.support import numpy_model, small

STEPS = 6


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A folder of calibrations of its own."""
    monkeypatch.setattr(calibration, "calibration_folder", lambda: tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def model():
    return numpy_model.model()


def plan(cache: str = "ertacache", **fields):
    return small.plan(cache, STEPS, **{"guidance": "cfg:scale=2", **fields})


def arrays(skipped=(2, 3), slope=0.0, offset=0.0, corrected=None):
    row = np.zeros((1, STEPS), np.float32)
    row[0, list(skipped)] = 1
    times = np.array([1 - i / STEPS for i in range(STEPS + 1)], np.float32)
    return {
        "threshold": np.array([0.1], np.float32),
        "skipped": row,
        "times": times,
        "corrected": (times if corrected is None else np.array(corrected, np.float32))[None],
        "slope.cond+uncond": np.full((1, STEPS), slope, np.float32),
        "offset.cond+uncond": np.full((1, STEPS), offset, np.float32),
    }


def kept_as(kept, model, chosen, made):
    known = Calibration(key_of(chosen.cache, model, chosen), made)
    path = kept / (known.name + ".safetensors")
    path.write_bytes(known.encode())
    return path


def run(model, chosen):
    from dit_tools.models.family import ConditionRequest
    from tests.support import loop

    x, noise = loop.start(model, chosen, (3, 16, 16), (5,))
    conditions = model.encode(ConditionRequest(("red",), ("blue",), Size.square(16)))
    state = RunState(chosen.times(model, x.shape), STEPS)
    before = len(model.network.calls)
    *_, last = loop.sample(model, conditions, x, chosen, noise, run=state)
    return last.x, len(model.network.calls) - before, state


def test_auto_finds_what_was_made_for_the_same_run_and_nothing_else(kept, model):
    kept_as(kept, model, plan(), arrays())
    assert run(model, plan())[1] == STEPS - 2
    for other in (plan(solver="heun"), plan(guidance="cfg:scale=3"), plan("ertacache:order=0")):
        with pytest.raises(InputError, match="ertacache: not calibrated for numpy") as caught:
            run(model, other)
        assert "run dit calibrate -m numpy --cache ertacache" in str(caught.value)


def test_a_named_file_of_another_model_or_other_settings_is_refused_in_one_line(kept, model, tmp_path):
    path = kept_as(kept, model, plan(), arrays())
    moved = path.rename(tmp_path / "mine.safetensors")
    named = plan(f"ertacache:calibration={moved}")
    assert run(model, named)[1] == STEPS - 2
    for other, chosen, word in (
        (numpy_model.model(revision="r2"), named, "model r1, not r2"),
        (model, replace(named, steps=9), "steps 6, not 9"),
        (model, plan(f"ertacache:calibration={moved}", guidance="cfg:scale=3"), "guidance cfg"),
        (model, plan(f"ertacache:calibration={moved},order=0"), "cache ertacache"),
    ):
        with pytest.raises(InputError, match=word) as caught:
            run(other, chosen)
        assert "\n" not in str(caught.value)
        assert "--calibration mine.safetensors" in str(caught.value)


def test_a_name_in_the_folder_will_do_and_a_missing_file_is_named(kept, model):
    path = kept_as(kept, model, plan(), arrays())
    assert run(model, plan(f"ertacache:calibration={path.stem}"))[1] == STEPS - 2
    with pytest.raises(InputError, match="--calibration nothere: no such file"):
        run(model, plan("ertacache:calibration=nothere"))


def test_a_start_midway_is_refused(kept, model):
    kept_as(kept, model, plan(), arrays())
    chosen = plan()
    with pytest.raises(UnsupportedError, match="whole runs at other times"):
        find_calibration(chosen.cache, model, chosen, (0.5, 0.25, 0.0))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    empty, text, foreign, bad = (tmp_path / f"{name}.safetensors" for name in "abcd")
    empty.write_bytes(b"")
    text.write_text("not a safetensors file at all, but long enough to look like a header")
    save_file({"x": np.ones(2, np.float32)}, str(foreign), {"format": "pt"})
    key = {"dit": json.dumps({"cache": "ertacache"})}
    save_file({"x": np.array([np.nan], np.float32)}, str(bad), key)
    for path in (empty, text, foreign, bad, tmp_path):
        with pytest.raises(InputError, match="calibration"):
            read_calibration(path)


def test_tables_of_other_shapes_are_refused():
    known = Calibration({}, {"a": np.zeros((2, 3), np.float32)})
    assert table(known, "a", (None, 3)).shape == (2, 3)
    for name, shape in (("a", (2, 4)), ("a", (2,)), ("b", (None,))):
        with pytest.raises(InputError, match=f"holds no {name} of"):
            table(known, name, shape)


def test_ertacache_reuses_at_listed_calls_and_rectifies_by_the_line(kept, model):
    """With one skipped call of order 0 the output is ``(1 - K) v - B``: compared by hand."""
    slope, offset = 0.25, 0.01
    made = arrays((2,), slope, offset)
    cache = replace(spec.parse("caching", "ertacache"), order=0)
    state = RunState(tuple(1 - i / STEPS for i in range(STEPS + 1)), STEPS, branches=("cond", "uncond"))
    state.calibration, outputs = Calibration({}, made), []
    values = iter(range(1, 99))
    network = cache.around(lambda **_: np.full((1, 2), float(next(values))), state)
    for state.call in range(STEPS):
        state.t = state.times[state.call]
        outputs.append(float(network(x=0)[0, 0]))
    assert outputs == pytest.approx([1, 2, (1 - slope) * 2 - offset, 3, 4, 5])
    state.branches, state.call = ("cond",), 2  # unknown branches are not rectified
    plain = replace(cache, rectify=False).around(lambda **_: np.ones((1, 2)), state)
    assert float(plain(x=0)[0, 0]) == 1.0


def test_threshold_picks_the_calibrated_level_below_it():
    known = Calibration({}, {"threshold": np.array([0.05, 0.1, 0.2], np.float32)})
    levels = [Ertacache(threshold=t).level(known) for t in (0.0, 0.04, 0.05, 0.12, 0.2, 9.0)]
    assert levels == [-1, -1, 0, 1, 2, 2]


def test_threshold_zero_is_the_plain_run(kept, model):
    kept_as(kept, model, plan(), arrays())
    plain, calls, _ = run(model, plan("none"))
    same, more, _ = run(model, plan("ertacache:threshold=0"))
    assert calls == more and (plain == same).all()


def test_corrected_times_are_sampled_unless_unwanted(kept, model):
    times = [1.0, 0.8, 0.6, 0.45, 0.3, 0.15, 0.0]
    kept_as(kept, model, plan(), arrays(corrected=times))
    assert run(model, plan())[2].times == pytest.approx(times)
    uncorrected = run(model, plan("ertacache:retime=false"))[2].times
    assert uncorrected == pytest.approx([1 - i / STEPS for i in range(STEPS + 1)])


def test_ilf_without_training_is_reuse_and_zero_gamma_is_the_same(kept):
    from dit_tools.nn.feedback import Feedback
    from dit_tools.tasks.calibrate.calibration_run import Probe

    model = small.pixart()
    block = model.network.blocks()[2]
    silent = Feedback.of(block, 16)
    loud = Feedback.of(block, 16)
    torch.nn.init.constant_(loud.gamma, 0.5)
    cache = spec.parse("caching", "ilf")

    def final(chosen):
        return small.final(model, small.conditions(), small.plan(chosen, 6))[0]

    reuse = final("ilf:calibration=untrained")
    weights = [{k: v.detach().numpy() for k, v in m.state_dict().items()} for m in (silent, loud)]
    made = [final(Probe(cache, Calibration({}, arrays))) for arrays in weights]
    assert torch.equal(made[0], reuse) and not torch.equal(made[1], reuse)
    assert torch.equal(final("ilf:calibration=none"), final("none"))
    with pytest.raises(InputError, match="does not fit"):
        final(Probe(cache, Calibration({}, {"gamma": np.zeros(16, np.float32)})))
