"""``--attention``, ``--tokens`` and ``--highres`` on their way from options to a plan and back."""

from __future__ import annotations

import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.plan import OPTIONAL, Plan
from dit_tools.jobs.expand import Job
from dit_tools.jobs.options import read_values
from dit_tools.jobs.settings import Settings, plan_of
from dit_tools.models.model import Defaults
from dit_tools.tasks.generate import compare

DEFAULTS = Defaults(steps=20, cfg=4.0, size=64, solver="euler")
CHOSEN = {"attention": "msw:share=1.0", "tokens": "none", "highres": "ntk:scale=2.0"}


def test_they_are_options_of_every_source_and_come_back_from_a_plan():
    values = read_values(dict(CHOSEN))
    plan = plan_of(Settings(**values), DEFAULTS, "cfg")
    assert plan.attention.share == 1.0 and plan.highres.scale == 2.0
    specs = plan.specs()
    assert "tokens" not in specs  # what is not chosen is not written
    assert Plan.parse(plan.steps, specs) == plan


def test_nothing_chosen_leaves_nothing_in_the_record():
    specs = plan_of(Settings(), DEFAULTS, "cfg").specs()
    assert not set(OPTIONAL) & specs.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": "ras", "cache": "output"}, "--tokens ras and --cache output: a forecast"),
        ({"tokens": "ras", "attention": "msw"}, "--attention msw and --tokens ras: a window"),
        ({"tokens": "jit", "solver": "unipc"}, "--tokens jit and --solver unipc: a waking token"),
    ],
)
def test_what_does_not_compose_is_refused_before_a_model_is_loaded(given, message):
    with pytest.raises(UsageError, match=message):
        Settings(**given).check()


def test_they_need_a_network_with_blocks_and_so_decide_the_backend():
    assert Settings(tokens="ras").needs() == {"blocks"}
    assert Settings(highres="ntk").needs() == {"blocks", "torch"}
    assert Settings(highres="diffusehigh").needs() == frozenset()


def test_compare_takes_attention_and_tokens_as_accelerations():
    def job(**given: str) -> Job:
        return Job(0, "cat", 0, Settings(**given))  # type: ignore[arg-type]

    compare.check_comparison([job(tokens="ras"), job(attention="msw")])
    with pytest.raises(UsageError, match="--compare: an image without a cache"):
        compare.check_comparison([job(highres="ntk")])
