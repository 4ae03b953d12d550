"""benchmarks/heads.py: a head that the score was made for is found, and beats others."""

from __future__ import annotations

import pytest

from benchmarks.heads import Row, measure, table
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.tasks.calibrate.heads import Draws
from tests.support import pixart, small


def test_the_found_head_is_judged_beside_random_ones():
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    plan = small.plan(steps=2, guidance="soft-pag:scale=2,weight=3,share=1")
    wanted = {}

    def remember(prompts):
        """The images with the wanted head perturbed, of the noise that is judged."""

        def keep(x, asked):
            wanted[tuple(asked)] = x
            return [0.0] * len(asked)

        seed = 0 if prompts == ("a", "b") else 10_000_000
        Draws(model, plan, prompts, keep, seed).mean([(1, 0)])

    def score(x, prompts):
        return (-(x - wanted[tuple(prompts)]).flatten(1).norm(dim=1)).tolist()

    remember(("a", "b"))
    remember(("c",))
    rows = measure(model, plan, ("a", "b"), ("c",), score, heads=1, random_sets=3, seed=0)
    assert [r.name for r in rows] == ["none", "default", "found", *(f"random {i}" for i in (1, 2, 3))]
    found = rows[2]
    assert found.heads == "1.0" and found.score == pytest.approx(0, abs=1e-5)
    assert found.better == 1.0 and rows[0].better == 0.0
    assert all(found.score >= r.score - 1e-5 for r in rows)


def test_random_sets_are_told_in_three_lines():
    rows = [Row("none", "", 0.1, 0.0), Row("found", "1.0", 0.3, 1.0)]
    rows += [Row(f"random {i}", "0.0", 0.1 * i, 0.5) for i in (1, 2, 3)]
    lines = table(rows).splitlines()
    assert len(lines) == 6
    assert [line.split()[-2] for line in lines[3:]] == ["0.2000", "0.1000", "0.3000"]
