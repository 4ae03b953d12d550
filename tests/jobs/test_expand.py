"""Prompts times sweep times seeds."""

import re

import pytest

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.expand import make_jobs
from dit_tools.jobs.options import read_values
from dit_tools.jobs.prompts import PromptItem
from dit_tools.jobs.sweep import parse_axes


def jobs(*prompts, sweep=(), **options):
    items = [PromptItem(text) for text in prompts]
    return make_jobs(items, [read_values(options)], parse_axes(sweep))


def test_order_is_prompts_then_sweep_then_seeds():
    made = jobs("a", "b", sweep=["cfg=1,2"], seed="5,6")
    assert [(j.prompt, j.settings.cfg_scale, j.seed) for j in made] == [
        (prompt, cfg, seed) for prompt in "ab" for cfg in (1, 2) for seed in (5, 6)
    ]
    assert [job.index for job in made] == list(range(8))
    assert made[2].place == (1,) and made[2].labels == {"cfg": "2"}


def test_seeds_count_up_from_the_one_given():
    assert [job.seed for job in jobs("a", num_images=3)] == [0, 1, 2]
    assert [job.seed for job in jobs("a", seed=40, num_images=3)] == [40, 41, 42]
    assert [job.seed for job in jobs("a", seed="4,9", num_images=2)] == [4, 9]


def test_random_seeds_differ_and_are_the_same_all_over_a_sweep():
    made = jobs("a", sweep=["cfg=1,2"], seed=-1, num_images=3)
    first, second = ([j.seed for j in made if j.settings.cfg_scale == cfg] for cfg in (1, 2))
    assert first == second and len(set(first)) == 3


def test_a_swept_seed_replaces_the_given_one():
    assert [job.seed for job in jobs("a", sweep=["seed=1..3"], seed=9)] == [1, 2, 3]


def test_a_line_overrides_the_command_line_and_the_sweep_overrides_the_line():
    items = [PromptItem("a", {"steps": "7", "seed": "3"}, 2, "x.csv"), PromptItem("b")]
    made = make_jobs(items, [{"steps": 9}], ())
    assert [(j.settings.steps, j.seed, j.line) for j in made] == [(7, 3, 2), (9, 0, 0)]
    assert [j.settings.steps for j in make_jobs(items, [], parse_axes(["steps=1"]))] == [1, 1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": "0"}, "x.csv:2: --steps 0: out of range; give 1..1000"),
        ({"solver": "eulr"}, "x.csv:2: --solver: no method 'eulr'; did you mean 'euler'?"),
        (
            {"transparent": "1", "background": "red"},
            "x.csv:2: --transparent and --background exclude each other; give one of them",
        ),
        ({"seed": "1,2", "num_images": "3"}, "x.csv:2: --num-images 3: --seed lists 2 seeds; give one of them"),
    ],
)
def test_a_bad_line_is_an_input_error_that_names_it(options, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make_jobs([PromptItem("a", options, 2, "x.csv")], [], ())


def test_contradictions():
    with pytest.raises(UsageError, match="--num-images 3: --seed lists 2 seeds"):
        jobs("a", seed="1,2", num_images=3)
    with pytest.raises(UsageError, match="run over"):
        jobs("a", seed=2**63 - 1, num_images=2)
    with pytest.raises(UsageError, match="^no prompt; give one"):
        jobs()


def test_too_many():
    with pytest.raises(UsageError, match="more than 100000 images"):
        jobs("a", "b", seed="1..60000")
