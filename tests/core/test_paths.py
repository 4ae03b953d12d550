"""Noise paths: their ends, their inverse, and diffusers' tables."""

import math

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import ModelError
from dit_tools.core.paths import VP, Flow, ModelInfo, log_snr
from dit_tools.models.betas import cumprods
from tests.support.gaussian import LINEAR

NOISY_END = VP(LINEAR.alphas_cumprod, LINEAR.alphas_cumprod[0])
PATHS = {"flow": Flow(), "vp": LINEAR, "vp-noisy-end": NOISY_END}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@given(t=st.floats(0.0011, 1.0, exclude_max=True))
def test_time_is_the_inverse_of_log_snr(path, t):
    assert path.time(log_snr(path, t)) == pytest.approx(t, abs=2e-6)


@pytest.mark.parametrize("path", [Flow(), LINEAR], ids=["flow", "vp"])
@given(t=st.floats(1e-6, 1e-3))
def test_time_is_the_inverse_near_the_clean_end(path, t):
    assert path.time(log_snr(path, t)) == pytest.approx(t, abs=2e-6)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_log_snr_falls(path, a, b):
    low, high = sorted((a, b))
    assert log_snr(path, low) >= log_snr(path, high)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@given(value=st.floats(-1e6, 1e6) | st.sampled_from([math.inf, -math.inf]))
def test_time_stays_in_the_unit_interval(path, value):
    assert 0 <= path.time(value) <= 1


@given(t=st.floats(0, 1))
def test_variance_is_preserved(t):
    assert LINEAR.alpha(t) ** 2 + LINEAR.sigma(t) ** 2 == pytest.approx(1.0, abs=1e-12)


def test_ends():
    assert (Flow().alpha(1.0), Flow().sigma(0.0)) == (0.0, 0.0)
    assert (LINEAR.alpha(0.0), LINEAR.sigma(0.0)) == (1.0, 0.0)
    assert log_snr(Flow(), 0.0) == math.inf and log_snr(Flow(), 1.0) == -math.inf
    assert NOISY_END.alpha(0.0) == LINEAR.alpha(0.001)


def test_table_positions():
    assert [LINEAR.index(LINEAR.at_index(i)) for i in (-1, 0, 499, 999)] == [-1, 0, 499, 999]
    assert LINEAR.alpha(LINEAR.at_index(499)) ** 2 == pytest.approx(LINEAR.alphas_cumprod[499])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"num_train_timesteps": 50},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
        {"rescale_betas_zero_snr": True},
    ],
)
@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_tables_are_diffusers_own(config, name):
    theirs = getattr(diffusers, name)(**config).alphas_cumprod.tolist()
    mine = cumprods({"_class_name": name, **config})
    assert mine == pytest.approx(theirs, rel=2e-6, abs=2e-8)


def test_unknown_betas():
    with pytest.raises(ModelError, match="unknown beta_schedule 'odd'.*; use linear"):
        cumprods({"beta_schedule": "odd"})


def test_zero_terminal_signal_has_a_finite_table():
    path = VP(cumprods({"rescale_betas_zero_snr": True, "_class_name": "DDIMScheduler"}))
    assert path.alpha(1.0) == pytest.approx(0.0, abs=1e-6)
    assert path.time(-100.0) == 1.0 and 0 < path.alpha(0.9995) < path.alpha(0.999)


def test_shift_by_tokens_is_the_line_of_flux():
    config = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    assert ModelInfo(Flow(), 256, config).mu == pytest.approx(0.5)
    assert ModelInfo(Flow(), 4096, config).mu == pytest.approx(1.15)
    assert ModelInfo(Flow(), 2176, {}).mu == pytest.approx(0.825)
