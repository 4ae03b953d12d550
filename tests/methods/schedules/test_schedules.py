"""What every schedule promises, and the formulas of uniform, shifted, karras and beta."""

import math

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Flow, ModelInfo
from dit_tools.core.registry import names
from dit_tools.methods.schedules.beta import Beta
from dit_tools.methods.schedules.karras import Karras
from dit_tools.methods.schedules.shifted import Shifted
from tests.support.gaussian import LINEAR

FLOW = ModelInfo(Flow(), 1024, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
VP = ModelInfo(LINEAR, 1024, {"_class_name": "DDIMScheduler"})
TEXTS = (
    *names("schedules"),
    "shifted:shift=none",
    "shifted:shift=0.2",
    "karras:rho=1",
    "beta:alpha=0.3,beta=0.3",
    "beta:alpha=3,beta=3",
)


@pytest.mark.parametrize("target", [FLOW, VP], ids=["flow", "vp"])
@pytest.mark.parametrize("steps", [1, 2, 4, 28, 100])
@pytest.mark.parametrize("text", TEXTS)
def test_times_fall_strictly_to_zero(text, steps, target):
    times = spec.parse("schedules", text).times(steps, target)
    assert len(times) == steps + 1 and times[-1] == 0 and times[0] <= 1
    assert all(type(t) is float for t in times)
    assert all(before > after for before, after in zip(times, times[1:], strict=False))


def test_shifted_is_the_papers_curve():
    made = Shifted(shift=3.0).times(10, FLOW)
    assert made == pytest.approx([3 * t / (1 + 2 * t) for t in np.linspace(1, 0, 11)])
    assert Shifted(shift=1.0).times(4, FLOW) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_shifted_by_tokens_uses_the_models_line():
    assert Shifted(shift=None).times(7, FLOW) == Shifted(shift=math.exp(FLOW.mu)).times(7, FLOW)


def test_shifted_on_a_variance_preserving_path_starts_at_its_noisiest_level():
    made = Shifted(shift=2.0).times(12, VP)
    levels = [LINEAR.sigma(t) / (LINEAR.alpha(t) + LINEAR.sigma(t)) for t in made]
    wanted = [levels[0] * 2 * u / (1 + u) for u in np.linspace(1, 0, 13)]
    assert made[0] == pytest.approx(1.0)
    assert levels == pytest.approx(wanted, abs=1e-9)


def test_karras_is_equation_5():
    made = Karras(rho=5.0, high=40.0, low=0.01).times(6, FLOW)
    ramp = np.linspace(40.0 ** (1 / 5), 0.01 ** (1 / 5), 6) ** 5
    assert [t / (1 - t) for t in made[:-1]] == pytest.approx(ramp)


def test_karras_on_a_table_keeps_within_it():
    made = Karras(high=1e6).times(6, VP)
    assert made[0] == 1.0 and made[-2] == pytest.approx(0.001)
    levels = [LINEAR.sigma(t) / LINEAR.alpha(t) for t in made[:-1]]
    assert levels == pytest.approx(np.linspace(levels[0] ** (1 / 7), levels[-1] ** (1 / 7), 6) ** 7)


def test_karras_refuses_crossed_bounds():
    with pytest.raises(UsageError, match="--schedule karras: high is not above low; give"):
        Karras(high=0.1, low=0.2).times(4, FLOW)


def test_beta_of_one_half_is_the_arcsine_law():
    made = Beta(alpha=0.5, beta=0.5).times(10, FLOW)
    assert made == pytest.approx([math.sin(math.pi / 2 * u) ** 2 for u in np.linspace(1, 0, 11)])


def test_beta_of_one_is_uniform():
    assert Beta(alpha=1.0, beta=1.0).times(8, FLOW) == pytest.approx(np.linspace(1, 0, 9))


def test_beta_asymmetry_moves_the_steps():
    clean, noisy = (Beta(*pair).times(20, FLOW) for pair in ((0.5, 2.0), (2.0, 0.5)))
    assert sum(clean) < 10 < sum(noisy)
