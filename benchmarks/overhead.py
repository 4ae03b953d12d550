"""What hooks cost by themselves: many empty blocks, ours next to cache-dit's and diffusers' own.

    python benchmarks/overhead.py [--layers 28] [--width 64] [--tokens 64] [--rounds 12] [--json]

The network is a PixArt transformer of random weights. "full" runs compute every block next to a gate
of threshold 0, and their blocks do nothing at all: what a call takes beyond one without hooks is
the hooks', "hooks" says it a block. "nothing" is a hook that only lets its block run. "skipping"
runs compute block 1 alone, of thin blocks that are almost nothing but Python. The network is called
with the same inputs again and again, so that a gate's error is 0. In every round each run makes
``--calls`` calls, one after the other in this process. Figures are the processor's microseconds of
this process a call, the least over rounds and calls, so that other work on the machine counts
little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import growth, rivals

RUNS = {
    "plain": "",
    "full, nothing": "nothing",
    "full, cache=first-block": "first-block:threshold=0",
    "full, cache=taylorseer": "taylorseer:interval=1",
    "full, rival=dbcache": "dbcache:threshold=-1",
    "full, rival=first-block": "first-block:threshold=-1",
    "skipping, cache=first-block": "first-block:threshold=1",
    "skipping, rival=dbcache": "dbcache:threshold=1",
    "skipping, rival=first-block": "first-block:threshold=1",
}
EMPTY = ("plain", "full")
"""How the names of runs begin whose blocks do nothing."""
SETTLED = 3  # calls at the beginning that warm caches up; the last one is always full


@dataclass(frozen=True)
class Row:
    """Microseconds a call, and a block beyond the plain run; None where blocks are skipped."""

    run: str
    call: float
    hooks: float | None


def measure(layers: int, width: int, tokens: int, calls: int, rounds: int) -> list[Row]:
    """A row per run; rivals that are not installed are left out."""
    import torch

    model = growth.network(layers, width, tokens)
    side = growth.side_of(tokens)
    condition = {
        "encoder_hidden_states": torch.randn(2, growth.TEXT, growth.TEXT_WIDTH),
        "encoder_attention_mask": torch.ones(2, growth.TEXT, dtype=torch.int64),
    }
    inputs = model.family.inputs(torch.randn(2, 4, side, side), 0.5, condition)
    runs: dict[str, Callable[[], list[float]]] = {}
    for name, text in RUNS.items():
        if "rival" not in name or rivals.installed(text):
            with blocks_of(name):  # hooks keep the forward that they find
                runs[name] = _caller(model, name, text, inputs, calls)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, call in runs.items():
            with blocks_of(name):
                found[name].append(min(call()[SETTLED:-1]))
    plain = min(found["plain"])
    return [
        Row(name, min(times) * 1e6, (min(times) - plain) * 1e6 / layers if name.startswith("full") else None)
        for name, times in found.items()
    ]


def blocks_of(name: str) -> AbstractContextManager[None]:
    """Inside, blocks are as a run's name says: empty or thin."""
    return empty() if name.startswith(EMPTY) else nullcontext()


def nothing(hidden_states: Any) -> Any:
    """What an empty block computes."""
    return hidden_states


@contextmanager
def empty() -> Iterator[None]:
    """Inside, the blocks of PixArt transformers compute ``nothing``."""
    from diffusers.models.attention import BasicTransformerBlock

    before = BasicTransformerBlock.forward

    @wraps(before)
    def forward(block: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        return nothing(hidden_states)

    BasicTransformerBlock.forward = forward
    try:
        yield
    finally:
        BasicTransformerBlock.forward = before


def _caller(model: Any, name: str, text: str, inputs: dict[str, Any], calls: int) -> Callable[[], list[float]]:
    """What makes ``calls`` calls of a fresh run and gives their seconds of the processor."""
    from dit_tools.core.run import RunState

    if "rival" in name:
        network = rivals.model_with(model, text, calls).network

        def rival() -> list[float]:
            network.start()
            return [_timed(network, inputs) for _ in range(calls)]

        return rival

    def ours() -> list[float]:
        run = RunState(tuple(1 - i / calls for i in range(calls + 1)), calls, branches=("cond",))
        run.path = model.path
        times = []
        with _hooked(model.network.blocks(), text, run):
            for run.call in range(calls):
                run.t = run.times[run.call]
                times.append(_timed(model.network, inputs))
        return times

    return ours


def _hooked(blocks: Any, text: str, run: Any) -> AbstractContextManager[None]:
    """A cache's hooks, or those that do nothing; none for no text."""
    from dit_tools.core import spec
    from dit_tools.nn.blocks import around_blocks

    if text == "nothing":
        return around_blocks(blocks, lambda position, compute, args, kwargs: compute(), "nothing")
    return spec.parse("caching", text).attach(blocks, run) if text else nullcontext()


def _timed(network: Any, inputs: dict[str, Any]) -> float:
    began = time.process_time()
    network(**inputs)
    return time.process_time() - began


def table(rows: list[Row]) -> str:
    """Aligned text under a heading."""
    lines = [f"{'run':28} {'us a call':>10} {'hooks, us a block':>18}"]
    for r in rows:
        lines.append(f"{r.run:28} {r.call:10.0f} {'' if r.hooks is None else f'{r.hooks:18.1f}'}")
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    a = parser.parse_args()
    rows = measure(a.layers, a.width, a.tokens, a.calls, a.rounds)
    print("\n".join(json.dumps(asdict(r)) for r in rows) if a.json else table(rows))


if __name__ == "__main__":
    main()
