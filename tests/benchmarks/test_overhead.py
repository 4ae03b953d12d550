"""benchmarks/overhead.py on a tiny network: every run computes or skips what its name says."""

from __future__ import annotations

from benchmarks import growth, overhead
from benchmarks.overhead import Row, measure, table


def test_full_runs_have_a_cost_of_hooks_and_skipping_ones_none():
    rows = {row.run: row for row in measure(2, 16, 16, 6, 1)}
    assert {"plain", "full, cache=first-block", "skipping, rival=first-block"} <= set(rows)
    for name, row in rows.items():
        assert row.call > 0 and (row.hooks is not None) == name.startswith("full")
    assert len(table(list(rows.values())).splitlines()) == len(rows) + 1


def test_names_say_what_is_computed(monkeypatch):
    """By counting the blocks that really run."""
    counted = []
    network, runs = growth.network, dict(overhead.RUNS)

    def watched(*sizes):
        model = network(*sizes)
        for block in model.network.module.transformer_blocks:
            block.attn1.to_q.register_forward_hook(lambda *_: counted.append(1))
        return model

    monkeypatch.setattr(growth, "network", watched)
    calls = {"plain": 6 * 4, "full, cache=first-block": 6 * 4, "full, cache=taylorseer": 6 * 4,
             "skipping, cache=first-block": 2 * 4 + 4}  # fmt: skip
    for name, blocks in calls.items():
        monkeypatch.setattr(overhead, "RUNS", {"plain": "", name: runs[name]})
        counted.clear()
        measure(4, 16, 16, 6, 1)
        assert len(counted) == blocks + (0 if name == "plain" else 6 * 4)


def test_the_table_leaves_out_what_is_not_told():
    lines = table([Row("plain", 10.0, None), Row("full, x", 12.0, 0.5)]).splitlines()
    assert lines[1].split() == ["plain", "10"] and lines[2].split() == ["full,", "x", "12", "0.5"]
