"""BDIA: Euler as a limit, the published formula, and that its steps can be undone."""

import itertools

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.methods.solvers.bdia import Bdia, undo_step
from dit_tools.methods.solvers.euler import Euler
from tests.support.gaussian import CASES, Gaussian, end, slope, start

EVEN = [1 - i / 20 for i in range(21)]
cases = pytest.mark.parametrize("case", CASES)


def taken(gamma, case, times, dtype="float64"):
    """Latents at every time of a run, the start included."""
    data, x = Gaussian(*CASES[case]), start(dtype)
    return [x, *(step.x for step in Bdia(gamma=gamma).steps(data, x, times, None))]


@cases
def test_gamma_zero_is_euler_bit_for_bit(case):
    ours = end(Bdia(gamma=0.0), Gaussian(*CASES[case]), start(), EVEN)
    assert (ours == end(Euler(), Gaussian(*CASES[case]), start(), EVEN)).all()


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_the_formula_on_a_flow(gamma):
    data, times = Gaussian(*CASES["flow-flow"]), [1.0, 0.7, 0.5, 0.0]
    z = taken(gamma, "flow-flow", times)
    assert z[1] == pytest.approx(z[0] - 0.3 * data(z[0], 1.0).velocity)
    for i in (1, 2):
        v = data(z[i], times[i]).velocity
        ahead, back = times[i + 1] - times[i], times[i - 1] - times[i]
        wanted = gamma * z[i - 1] + (1 - gamma) * z[i] + (ahead - gamma * back) * v
        assert z[i + 1] == pytest.approx(wanted)


def test_the_formula_on_a_variance_preserving_path():
    path, kind = CASES["vp-eps"]
    data, times, gamma = Gaussian(path, kind), [0.9, 0.6, 0.3], 0.5
    z = taken(gamma, "vp-eps", times)
    eps = data(z[1], 0.6).eps

    def ddim(t):
        x0 = (z[1] - path.sigma(0.6) * eps) / path.alpha(0.6)
        return path.alpha(t) * x0 + path.sigma(t) * eps

    wanted = z[0] - (1 - gamma) * (z[0] - z[1]) - gamma * (ddim(0.9) - z[1]) + (ddim(0.3) - z[1])
    assert z[2] == pytest.approx(wanted)


def turned(gamma, case, dtype):
    """How far off the noise is after a run and its inverse from the last pair of latents."""
    z = taken(gamma, case, EVEN, dtype)
    data, after, here = Gaussian(*CASES[case]), z[-1], z[-2]
    for i in range(len(EVEN) - 2, 0, -1):
        before = undo_step(after, data(here, EVEN[i]), EVEN[i - 1], EVEN[i + 1], gamma)
        after, here = here, before
    return abs(here - z[0]).max()


@cases
def test_a_run_can_be_undone(case):
    assert turned(1.0, case, "float64") < 1e-8
    assert turned(0.94, case, "float64") < 1e-7


def test_undoing_multiplies_rounding_by_the_power_of_one_over_gamma():
    assert turned(1.0, "flow-flow", "float32") < 1e-4
    assert turned(0.5, "flow-flow", "float64") > 100 * turned(1.0, "flow-flow", "float64")


@cases
def test_a_run_goes_on_from_a_pair(case):
    z = taken(0.7, case, EVEN)
    steps = list(Bdia(gamma=0.7).resume(Gaussian(*CASES[case]), z[0], z[1], EVEN))
    assert [step.index for step in steps] == list(range(1, 20))
    assert all((s.x == wanted).all() for s, wanted in itertools.zip_longest(steps, z[2:]))


def test_gamma_one_is_of_second_order():
    assert 1.8 < slope(spec.parse("solvers", "bdia:gamma=1"), "flow-flow", 0.9, 0.1, (32, 64, 128))


def test_it_is_closer_than_euler_with_few_steps():
    data = Gaussian(*CASES["flow-flow"])
    times = [0.95 - i * 0.09 for i in range(11)]
    truth = data.solution(start(), times[0], times[-1])
    errors = [np.abs(end(s, data, start(), times) - truth).mean() for s in (Bdia(), Euler())]
    assert errors[0] < errors[1]
