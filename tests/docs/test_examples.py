"""The examples of docs/contributing.md are compiled and run: each does what the page says of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.paths import Flow
from dit_tools.core.size import Size
from dit_tools.media import image
from tests.support import small
from tests.support.gaussian import Gaussian, end, start

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S))
MODULES = {
    "solver": "dit_tools.methods.solvers.example_midpoint",
    "cache": "dit_tools.methods.caching.example_repeat",
    "metric": "dit_tools.methods.metrics.example_mean_error",
    "task": "example_task",
    "family": "example_family",
}


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module that an example of the page makes, importable while the test runs."""
    module = ModuleType(MODULES[request.param])
    sys.modules[module.__name__] = module
    exec(compile(EXAMPLES[request.param], str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


def of(name: str) -> Any:
    return pytest.mark.parametrize("example", [name], indirect=True)


def test_every_example_of_the_page_has_a_test() -> None:
    assert EXAMPLES.keys() == MODULES.keys()


@of("solver")
def test_the_solver_is_of_second_order(example: Any) -> None:
    data = Gaussian(Flow(), "flow")
    x = start()
    exact = data.solution(x, 1.0, 0.2)
    errors = []
    for steps in (20, 40):
        times = [1 - 0.8 * i / steps for i in range(steps + 1)]
        errors.append(float(abs(end(example.Midpoint(), data, x, times) - exact).max()))
    assert errors[0] / errors[1] > 3.5  # half the step, a quarter of the error at least
    assert [p.name for p in spec.parameters(example.Midpoint)] == ["middle"]
    assert example.Midpoint.info.flag == "--solver"


@of("cache")
def test_the_cache_calls_half_as_often_and_is_exact_at_its_identity(example: Any) -> None:
    model, given = small.pixart(), small.conditions()
    calls: list[None] = []
    model.network.module.register_forward_hook(lambda *_: calls.append(None))
    plain, _ = small.final(model, given, small.plan(steps=8, guidance="cfg:scale=3"))
    every = len(calls)
    exact, _ = small.final(model, given, small.plan(example.Repeat(interval=1), 8, "cfg:scale=3"))
    assert len(calls) == 2 * every
    repeated, _ = small.final(model, given, small.plan(example.Repeat(interval=2), 8, "cfg:scale=3"))
    assert len(calls) == 2.5 * every
    assert bool((exact == plain).all())
    assert not bool((repeated == plain).all()) and float(abs(repeated - plain).mean()) < float(abs(plain).mean())


@of("metric")
def test_the_metric_counts_levels(example: Any) -> None:
    a = np.zeros((2, 3, 4, 4))
    b = a + np.array([0.0, 0.1]).reshape(2, 1, 1, 1)
    assert example.MeanError().of(a, b) == pytest.approx([0, 25.5])
    assert example.MeanError().mean(a, b) == pytest.approx(12.75)
    with pytest.raises(ValueError, match="equal shape"):
        example.MeanError().of(a, b[:1])


@of("task")
def test_the_task_writes_negatives_and_resumes(example: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, level in (("a", 0.0), ("b", 0.25)):
        (source / f"{name}.png").write_bytes(image.encode(np.full((4, 5, 3), level, dtype=np.float32), "png"))
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    events: list[dict[str, Any]] = []
    outcome = example.plan_negatives([str(source)], f"{tmp_path}/out/", events.append).start()
    assert outcome.exit_code == 3 and [Path(name).name for name, _ in outcome.failed] == ["broken.png"]
    made = {path.stem: image.read(str(path)).pixels for path in sorted((tmp_path / "out").glob("*.png"))}
    assert sorted(made) == ["a-negative", "b-negative"]
    assert made["a-negative"] == pytest.approx(1.0) and made["b-negative"] == pytest.approx(0.75, abs=1 / 255)
    again = example.plan_negatives([str(source)], f"{tmp_path}/out/", events.append).start()
    assert again.skipped == 2 and not again.written


@of("family")
def test_the_family_calls_a_transformer(example: Any) -> None:
    config = {"in_channels": 4, "sample_size": 8, "patch_size": 2}
    family = example.Plain(config, {"block_out_channels": [8]}, {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert family.latent_shape(Size.square(8)) == (4, 8, 8) and family.tokens((1, 4, 8, 8)) == 16
    x = np.ones((1, 4, 8, 8), dtype=np.float32)
    inputs = family.inputs(x, 0.5, {"encoder_hidden_states": np.zeros((1, 3, 2))})
    assert inputs.keys() == {"hidden_states", "timestep", "encoder_hidden_states"}
    assert inputs["timestep"] == pytest.approx([500.0])
    assert family.read(2 * x, x, 0.5).velocity == pytest.approx(2 * x)
