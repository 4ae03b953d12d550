"""What a session computes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dit_tools.tasks.train.training_run import TrainingRun


@pytest.mark.parametrize(
    ("avx", "amx", "made"), [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")]
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, made: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    session = TrainingRun(Path("run"))
    assert session.dtype == made
    with session.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, made)


def test_a_torch_without_these_questions_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert TrainingRun(Path("run")).dtype == "float32"
    assert TrainingRun(Path("run"), dtype="bfloat16").dtype == "bfloat16"
