"""The order of every solver, by slope on Gaussian data, in numpy and in torch alike."""

import numpy as np
import pytest
import torch

from dit_tools.core import registry, spec
from tests.support.gaussian import CASES, LINEAR, Gaussian, end, slope, start, vp_times

ORDERS = {
    "euler": (0.9, 1.1),
    "ddim": (0.9, 1.1),
    "heun": (1.9, 2.2),
    "dpmpp-2m:order=1": (0.9, 1.1),
    "dpmpp-2m": (1.9, 2.2),
    "unipc:order=1": (1.9, 2.2),  # the corrector adds one
    "unipc": (1.9, 2.2),  # its last steps are of lower order
    "unipc:lower_order_final=false": (2.3, 3.2),
    "unipc:order=3,lower_order_final=false": (2.7, 4.4),
    "ghvb:order=1,beta=1.0": (0.9, 1.1),
    "ghvb": (1.7, 2.3),
    "ghvb:order=4,beta=0.7": (1.7, 3.2),  # the low-order start-up shows
    "ghvb:form=hb": (0.8, 1.3),
    "bdia": (0.9, 1.2),
    "bdia:gamma=1.0": (1.7, 2.2),
}
COUNTS = (32, 64, 128)
OWN = [name for name in registry.names("solvers") if name != "diffusers"]


def test_every_solver_is_measured():
    assert {text.partition(":")[0] for text in ORDERS} == set(OWN)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", ORDERS)
def test_order_inside(text, case):
    low, high = ORDERS[text]
    assert low < slope(spec.parse("solvers", text), case, 0.9, 0.1, COUNTS) < high


@pytest.mark.parametrize("text", ORDERS)
@pytest.mark.parametrize("case", ["flow-flow", "vp-eps"])
def test_order_in_torch(text, case):
    low, high = ORDERS[text]
    solver = spec.parse("solvers", text)
    assert low < slope(solver, case, 0.9, 0.1, COUNTS, torch.as_tensor) < high


@pytest.mark.parametrize(
    ("text", "low"),
    # Near t = 1 the log-SNR is infinite: methods linear in it lose a logarithm, h^2 log h.
    [("euler", 0.9), ("ddim", 0.9), ("heun", 1.9), ("dpmpp-2m", 1.4), ("unipc", 1.9)],
)
@pytest.mark.parametrize("case", ["flow-flow", "flow-x0"])
def test_order_from_pure_noise_to_clean_data(text, low, case):
    assert slope(spec.parse("solvers", text), case, 1.0, 0.0, COUNTS) > low


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", [*ORDERS, "ddim:eta=1.0", "ddim:clip=0.5"])
def test_numpy_and_torch_agree(text, case, dtype):
    path, kind = CASES[case]
    times = vp_times(1.0, 0.1, 11) if path is LINEAR else [1 - i / 11 for i in range(12)]
    solver, x = spec.parse("solvers", text), start(dtype)
    one = end(solver, Gaussian(path, kind), x, times, Fresh(x, np.asarray))
    two = end(solver, Gaussian(path, kind), torch.as_tensor(x), times, Fresh(x, torch.as_tensor))
    assert np.isfinite(one).all()
    assert one.dtype == x.dtype and two.dtype == torch.as_tensor(x).dtype
    assert abs(one - two.numpy()).max() < 1e-5


class Fresh:
    """A noise stream of either kind of array."""

    def __init__(self, like, convert):
        self.random, self.like, self.convert = np.random.default_rng(1), like, convert

    def fresh(self):
        """The next noise, shaped as ``like``."""
        return self.convert(self.random.standard_normal(self.like.shape).astype(self.like.dtype))


@pytest.mark.parametrize("text", OWN)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_steps_are_finite_and_counted(text, count):
    solver = spec.parse("solvers", text)
    for path, kind in CASES.values():
        data = Gaussian(path, kind)
        times = [1 - i / count for i in range(count + 1)]
        made = list(solver.steps(data, start(), times, None))
        assert [step.t for step in made] == times[1:]
        assert [step.index for step in made] == list(range(count))
        assert all(np.isfinite(step.x).all() and step.total == count for step in made)
        assert len(data.asked) == solver.calls(count)


@pytest.mark.parametrize("text", OWN)
def test_input_latents_stay_as_they_are(text):
    x = start()
    before = x.copy()
    end(spec.parse("solvers", text), Gaussian(*CASES["flow-flow"]), x, [1.0, 0.5, 0.0])
    assert (x == before).all()
