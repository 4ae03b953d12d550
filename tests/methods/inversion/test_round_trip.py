"""There and back on exactly known data: which methods are exact, and how far the others are off."""

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import names
from dit_tools.core.steps import cap_times, transfer_coefficients
from dit_tools.methods.inversion.bdia import Recurrence
from dit_tools.methods.inversion.edict import Coupled
from tests.support.gaussian import LINEAR, Gaussian
from tests.support.mixture import SHAPE, Mixture, Stream, round_trip, uniform

EXACT = ("bdia", "direct", "dpm-encoder", "edict")
FLOW = Mixture()


def of(text):
    return spec.parse("inversion", text)


def error(text, denoise=FLOW, steps=28, dtype="float64", start=1.0):
    return round_trip(of(text), denoise, denoise.data(dtype), uniform(steps, start))[0]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("path", [Flow(), LINEAR], ids=["flow", "vp"])
@pytest.mark.parametrize("steps", [30, 50])
def test_exact_methods_come_back_and_ddim_does_not(name, path, steps):
    data = Mixture(path)
    assert of(name).exact
    double = error(name, data, steps)
    assert double < 1e-8
    single = error(name, data, steps, "float32")
    assert single < 1e-4
    assert error("ddim", data, steps) > 100 * max(double, single)


def test_every_method_is_judged_here():
    assert {n for n in names("inversion") if of(n).exact} == set(EXACT)
    others = {"ddim", "midpoint", "null-text"}  # the last needs a network: test_null_text.py
    assert set(names("inversion")) == {*EXACT, *others}


@pytest.mark.parametrize(
    "text", ["edict:mix=1", "edict:mix=0.8", "bdia:gamma=1", "dpm-encoder:eta=1", "edict:mix=0.97", "direct:share=1"]
)
def test_parameters_keep_the_promise(text):
    assert error(text) < 1e-8


def test_orders():
    first = [error("ddim", steps=n) for n in (20, 40, 80)]
    second = [error("midpoint", steps=n) for n in (20, 40, 80)]
    reused = [error("midpoint:reuse=true", steps=n) for n in (20, 40, 80)]
    assert first[0] / first[2] > 2.5
    assert second[0] / second[2] > 14 and reused[0] / reused[2] > 12
    assert second[1] < 0.05 * first[1] and reused[1] < 0.2 * first[1]


def test_fixed_points_make_ddim_exact_where_they_converge():
    errors = [error(f"ddim:refine={k}", steps=50, start=0.9) for k in (0, 3, 15)]
    assert errors[1] < 0.3 * errors[0] and errors[2] < 0.01 * errors[0]


@pytest.mark.parametrize(
    "text, there, back",
    [
        ("ddim", 10, 10),
        ("ddim:refine=2", 30, 10),
        ("midpoint", 20, 20),
        ("midpoint:reuse=true", 11, 11),
        ("edict", 20, 20),
        ("bdia", 10, 9),
        ("direct", 10, 10),
        ("dpm-encoder", 10, 10),
    ],
)
def test_network_calls(text, there, back):
    data, chosen = Mixture(), of(text)
    times = chosen.usable(uniform(10), data.path)
    found = chosen.invert(data, data.data(), times, Stream())
    assert data.calls == there
    list(chosen.back(found.state).steps(data, found.noise, times, None))
    assert data.calls == there + back


@pytest.mark.parametrize("text", ["ddim", "midpoint", "edict", "bdia", "direct", "dpm-encoder"])
def test_steps_are_reported_in_order_and_the_input_is_left_alone(text):
    chosen, x0 = of(text), FLOW.data()
    kept, times = x0.copy(), of(text).usable(uniform(6), FLOW.path)
    found = chosen.invert(FLOW, x0, times, Stream())
    start = found.noise.copy()
    steps = list(chosen.back(found.state).steps(FLOW, found.noise, times, None))
    assert [(s.index, s.total, s.t) for s in steps] == [(i, 6, times[i + 1]) for i in range(6)]
    assert np.array_equal(x0, kept) and np.array_equal(found.noise, start)
    assert set(found.state) == set(chosen.carries)


@pytest.mark.parametrize("text", ["ddim", "midpoint", "edict", "bdia", "direct"])
def test_one_step(text):
    assert np.isfinite(error(text, steps=1, start=0.6))


def test_torch_gives_what_numpy_gives():
    class Torch(Mixture):
        def __call__(self, x, t):
            p = super().__call__(x.numpy(), t)
            return Prediction(torch.as_tensor(p.raw), p.kind, x, t, p.path)

    for name in (n for n in names("inversion") if not of(n).guided):
        chosen, data = of(name), Torch()
        times = chosen.usable(uniform(6), data.path)
        mine = chosen.invert(FLOW, FLOW.data(), times, Stream())

        class Noise(Stream):
            def fresh(self):
                return torch.as_tensor(super().fresh())

        theirs = chosen.invert(data, torch.as_tensor(FLOW.data()), times, Noise())
        assert abs(theirs.noise.numpy() - mine.noise).max() < 1e-12
        for key, array in mine.state.items():
            assert abs(theirs.state[key].numpy() - array).max() < 1e-9


# EDICT -------------------------------------------------------------------------------------------


def constant(path=None, value=0.3):
    path = path or LINEAR

    def denoise(x, t):
        return Prediction(np.full_like(x, value), "eps", x, t, path)

    denoise.path = path
    return denoise


def test_edict_with_constant_noise_is_ddim_and_keeps_the_pair_together():
    denoise, x = constant(), np.ones((1, *SHAPE))
    a, b = transfer_coefficients(LINEAR, 0.6, 0.3)
    (step,) = Coupled(x, 0.93).steps(denoise, x, (0.6, 0.3), None)
    assert np.allclose(step.x, a * x + b * 0.3, rtol=1e-14)
    back = of("edict").invert(denoise, FLOW.data(), uniform(8, 0.9))
    assert np.allclose(back.noise, back.state["pair"], atol=1e-12)


def test_edict_is_the_papers_algorithm():
    random = np.random.default_rng(0)
    x, y, p = random.standard_normal((1, *SHAPE)), random.standard_normal((1, *SHAPE)), 0.93
    denoise = Gaussian(LINEAR, "eps")
    a, b = transfer_coefficients(LINEAR, 0.7, 0.4)
    x1 = a * x + b * denoise(y, 0.7).eps
    y1 = a * y + b * denoise(x1, 0.7).eps
    x2 = p * x1 + (1 - p) * y1
    (step,) = Coupled(y, p).steps(denoise, x, (0.7, 0.4), None)
    assert np.allclose(step.x, x2, rtol=1e-14)


def test_edict_with_the_wrong_parity_does_not_come_back():
    chosen, times = of("edict"), of("edict").usable(uniform(9), FLOW.path)
    x0 = FLOW.data()
    found = chosen.invert(FLOW, x0, times)
    swapped = Coupled(found.noise, 0.93).steps(FLOW, found.state["pair"], times, None)
    assert abs(list(swapped)[-1].x - x0).max() > 1e-4


def test_edict_starts_where_a_little_signal_is_left():
    assert of("edict").usable(uniform(100), Flow())[0] == pytest.approx(0.98)
    assert cap_times((0.9, 0.5, 0.0), Flow()) == (0.9, 0.5, 0.0)
    with pytest.raises(UnsupportedError, match="edict.*--strength"):
        of("edict").invert(FLOW, FLOW.data(), uniform(4))


# BDIA --------------------------------------------------------------------------------------------


def test_bdia_on_a_flow_is_the_derived_recurrence():
    random = np.random.default_rng(0)
    before, x = random.standard_normal((2, 1, *SHAPE))
    times, gamma = (0.9, 0.7, 0.4), 0.8
    *_, last = Recurrence(x, gamma).steps(FLOW, before, times, None)
    v = FLOW(x, 0.7).velocity
    expected = gamma * before + (1 - gamma) * x + ((0.4 - 0.7) - gamma * (0.9 - 0.7)) * v
    assert np.allclose(last.x, expected, atol=1e-12)


def test_bdia_refuses_where_rounding_would_take_over():
    with pytest.raises(UnsupportedError, match="gamma=0.5.*use gamma of at least 0.8"):
        error("bdia:gamma=0.5", steps=50)
    assert error("bdia:gamma=0.5", steps=8) < 1e-8


# DPM-Encoder -------------------------------------------------------------------------------------


def test_codes_are_noise_at_high_times_and_the_start_is_drawn_from_the_forward_process():
    data, chosen = Mixture(), of("dpm-encoder:eta=0.5")
    times = chosen.usable(uniform(20), data.path)
    found = chosen.invert(data, data.data(), times, Stream())
    early = found.state["codes"][:8]
    assert abs(early.mean()) < 0.2 and early.std() == pytest.approx(1.0, abs=0.25)
    first = 0.02 * data.data() + times[0] * Stream().fresh()
    assert np.allclose(found.noise, first, atol=1e-9)


def test_swapped_codes_change_the_picture():
    chosen, times = of("dpm-encoder"), of("dpm-encoder").usable(uniform(10), FLOW.path)
    one, two = (chosen.invert(FLOW, FLOW.data(seed=s), times, Stream(s)) for s in (1, 2))
    mixed = {**one.state, "codes": two.state["codes"]}
    *_, last = chosen.back(mixed).steps(FLOW, one.noise, times, None)
    assert abs(last.x - FLOW.data(seed=1)).max() > 0.01


# Direct inversion --------------------------------------------------------------------------------


def test_direct_holds_the_first_row_and_leaves_the_others_alone():
    chosen, x0, times = of("direct"), FLOW.data(), uniform(10)
    found = chosen.invert(FLOW, x0, times)
    both = np.concatenate([found.noise, found.noise])
    *_, last = chosen.back(found.state).steps(FLOW, both, times, None)
    assert np.array_equal(last.x[:1], x0)
    *_, plain = of("ddim").back({}).steps(FLOW, found.noise, times, None)
    assert np.allclose(last.x[1:], plain.x, atol=1e-12)
