"""A learned table and random ones of as many modules, on a tiny pipeline."""

from __future__ import annotations

import numpy as np

from benchmarks.harmonica import measure, shuffled
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.support import pixart


def test_random_tables_compute_as_much_as_the_learned_one() -> None:
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    even, learned, *random = measure(model, 6, 2, 2.0, 2, 3)
    assert (even.table, learned.table, len(random)) == ("even", "learned", 3)
    assert all(row.computed == learned.computed < 1 for row in random)
    assert all(row.error > 0 for row in (even, learned, *random))
    assert len({row.error for row in random}) > 1


def test_the_first_and_the_last_call_stay() -> None:
    rho = np.arange(20.0).reshape(5, 4)
    made = shuffled(rho, 0)
    assert (made[[0, -1]] == rho[[0, -1]]).all() and (made != rho).any()
    assert sorted(made.ravel()) == sorted(rho.ravel())
