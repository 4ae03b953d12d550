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
    """By counting the blocks that really run: thin ones, and empty ones of full runs."""
    thin, empty = [], []
    network, runs, nothing = growth.network, dict(overhead.RUNS), overhead.nothing

    def watched(*sizes):
        model = network(*sizes)
        for block in model.network.module.transformer_blocks:
            block.attn1.to_q.register_forward_hook(lambda *_: thin.append(1))
        return model

    def counted(hidden_states):
        empty.append(1)
        return nothing(hidden_states)

    monkeypatch.setattr(growth, "network", watched)
    monkeypatch.setattr(overhead, "nothing", counted)
    plain = 6 * 4
    calls = {
        "full, nothing": (plain, 0),
        "full, cache=first-block": (plain, 0),
        "full, cache=taylorseer": (plain, 0),
        "skipping, cache=first-block": (0, 2 * 4 + 4),
    }
    for name, (whole, part) in calls.items():
        monkeypatch.setattr(overhead, "RUNS", {"plain": "", name: runs[name]})
        thin.clear(), empty.clear()
        measure(4, 16, 16, 6, 1)
        assert (len(empty), len(thin)) == (plain + whole, part), name


def test_the_table_leaves_out_what_is_not_told():
    lines = table([Row("plain", 10.0, None), Row("full, x", 12.0, 0.5)]).splitlines()
    assert lines[1].split() == ["plain", "10"] and lines[2].split() == ["full,", "x", "12", "0.5"]
