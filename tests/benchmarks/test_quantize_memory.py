"""The pieces of benchmarks/quantize_memory.py: the watch, and a synthetic model that packs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantize_memory import Peak, synthetic
from dit_tools.core import spec
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.quantize import packed_folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_watch_sees_what_is_allocated() -> None:
    import time

    with Peak() as peak:
        block = np.ones(8_000_000)
        time.sleep(0.2)
        del block
    assert 60e6 < peak.bytes < 400e6


def test_a_synthetic_model_packs_and_loads(tmp_path: Path) -> None:
    count = synthetic(tmp_path / "model", 40_000, width=32)
    wanted = packed_folder.QuantizeConfig(tmp_path / "out", spec.parse("quantization", "rtn:bits=4,group=16"))
    source = resolve(str(tmp_path / "model"))
    layers = packed_folder.preflight(source, wanted)
    assert layers.numbers == count > 30_000
    packed_folder.write_folder(source, wanted, layers, {}, lambda folder: {})
    assert load(str(tmp_path / "out"), device="cpu").network.module.config.num_layers == 2
