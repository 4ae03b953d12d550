"""Which cache ``--cache slow|medium|fast|ultra`` stand for on a model, chosen from measurement.

The choice depends on nothing but the model: work is counted, not timed, and images are compared
with those of the plain run. A word stands for the cache that computes least among those whose
images keep its fidelity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.models import cache_presets
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun, Probe
from dit_tools.tasks.calibrate.run import psnr

FIDELITY = {"slow": 45.0, "medium": 38.0, "fast": 32.0, "ultra": 26.0}
"""Word -> mean PSNR in dB that its images keep."""
CANDIDATES = (
    *(f"output:interval={n},order={order}" for n in range(2, 8) for order in (1, 2)),
    *(f"output:interval=2,order=1,warmup={n}" for n in (6, 10)),
    *(f"taylorseer:interval={n},order={order}" for n in range(2, 8) for order in (1, 2)),
    *(f"cg-taylor:threshold={t}" for t in (0.01, 0.03, 0.06, 0.1, 0.2)),
    *(f"first-block:threshold={t}" for t in (0.03, 0.08, 0.15, 0.3)),
    *(f"seacache:threshold={t},max_skips={n}" for t in (0.15, 0.5, 1.5) for n in (2, 4)),
    *(f"encoder-propagation:interval={n},order=1,share=0.75" for n in (2, 3)),
)
"""What is tried; caches that need a file of their own are not."""


@dataclass(frozen=True)
class Measured:
    """A cache on the model: ``computed`` is the share of block evaluations, ``psnr`` in dB."""

    spec: str
    computed: float
    psnr: float
    word: str = ""

    def to_json(self) -> dict[str, Any]:
        """As an object; an infinite PSNR is None."""
        made = asdict(self)
        return made if math.isfinite(self.psnr) else made | {"psnr": None}


def measure_presets(session: CalibrationRun, candidates: Sequence[str] = CANDIDATES) -> list[Measured]:
    """Every candidate on the model; caches that the network cannot carry are left out.

    So are caches of blocks on graphs: a word must mean the same on both backends, and in pieces
    every call costs some more, which counting blocks does not see.
    """
    offered = session.model.network.offers if session.model.backend != "onnx" else frozenset()
    plain, run = session.plain()
    blocks = len(session.model.network.blocks()) or 1 if offered else 1
    calls = run.count["network calls"]
    found = []
    for done, text in enumerate(candidates):
        session.tell(done, len(candidates))
        cache = spec.parse("caching", text)
        if cache.needs <= offered:
            x, run = session.run(Probe(cache))
            share = evaluations(run, blocks) / (calls * blocks)
            found.append(Measured(text, round(share, 4), round(psnr(session, x, plain), 2)))
    session.tell(len(candidates), len(candidates))
    return found


def evaluations(run: Any, blocks: int) -> float:
    """Block evaluations of a run; a cache of whole calls counts the network as one block."""
    computed, skipped = run.count["blocks computed"], run.count["blocks skipped"]
    calls = run.count["network calls"]
    return computed * blocks if computed + skipped == calls and blocks > 1 else computed


def choose_presets(found: Sequence[Measured]) -> list[Measured]:
    """For each word of ``FIDELITY`` the one that computes least and keeps it, else no cache.

    Of equals the one that needs nothing of the network, which runs on every backend and computes no
    embedding either; then the nearer one.
    """
    made = []
    for word, least in FIDELITY.items():
        fit = [one for one in found if one.psnr >= least]
        best = min(fit, key=_order, default=None)
        made.append(replace(best or Measured("none", 1.0, math.inf), word=word))
    return made


def _order(one: Measured) -> tuple[float, int, float, str]:
    needs = spec.parse("caching", one.spec).needs
    return one.computed, len(needs), -one.psnr, one.spec


def merge_tables(
    table: dict[str, dict[str, dict[str, str]]], model: str, steps: int, found: Sequence[Measured]
) -> dict[str, dict[str, dict[str, str]]]:
    """A table with the choices for a model at a number of steps put in."""
    rows = table.get(model, {}) | {str(steps): {one.word: one.spec for one in found}}
    rows = dict(sorted(rows.items(), key=lambda item: int(item[0])))
    return dict(sorted((table | {model: rows}).items()))


def text_of(table: dict[str, Any]) -> str:
    """The table as it is written."""
    return json.dumps(table, indent=1) + "\n"


def save_presets(model: str | None, steps: int, found: Sequence[Measured]) -> Path:
    """Put the choices into the user's table; gives its path."""
    from dit_tools.jobs.atomic import atomic_write, write_error
    from dit_tools.jobs.settings import DEFAULT_MODEL

    path = cache_presets.own_table()
    table = cache_presets.read_presets(path) if path.is_file() else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text_of(merge_tables(table, model or DEFAULT_MODEL, steps, found)).encode())
    except OSError as error:
        raise write_error(path, error) from None
    return path
