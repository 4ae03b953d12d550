"""Tests of vector quantization some rows at a time, and of the file that holds the others."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from dit_tools.core.errors import InputError
from dit_tools.nn import disk_tensors as shelves
from dit_tools.nn import vector_quantization
from dit_tools.nn.disk_tensors import DiskTensors
from dit_tools.nn.vector_quantization import calibrate_codebook, closest, kmeans, nearest
from dit_tools.tasks.quantize import resume


@pytest.mark.parametrize("held", [0, shelves.HELD])  # 0: no bound, so a file from the first byte
def test_a_shelf_gives_back_what_was_put_last(held: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(shelves, "HELD", held or 1)
    codes, values = torch.arange(6, dtype=torch.int16).reshape(2, 3), torch.randn(5)
    with DiskTensors() as shelf:
        shelf.put("a", [codes, values])
        shelf.put("b", [values.double(), codes.T])  # not contiguous
        shelf.put("a", [codes + 1, -values])
        first, second = shelf.take("a")
        third, fourth = shelf.take("b")
    assert torch.equal(first, codes + 1) and torch.equal(second, -values)
    assert torch.equal(third, values.double()) and torch.equal(fourth, codes.T)


def test_a_shelf_refuses_other_shapes_and_unknown_keys() -> None:
    with DiskTensors() as shelf:
        shelf.put(0, [torch.zeros(3)])
        with pytest.raises(ValueError):
            shelf.put(0, [torch.zeros(4)])
        with pytest.raises(KeyError):
            shelf.take(1)


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (96, 64) and moments of its inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return torch.randn(96, 64, generator=generator) * 0.1, x.T @ x / 300


def test_some_rows_at_a_time_are_all_rows_at_once(monkeypatch: Any) -> None:
    weight, moments = problem()
    codebook, before = kmeans(weight.reshape(-1, 4), 64)
    book, codes = calibrate_codebook(weight, codebook, moments, 3, 60)
    monkeypatch.setattr(vector_quantization, "ROWS", 7 * 64)  # fourteen parts, the last one smaller
    monkeypatch.setattr(shelves, "HELD", 1)
    book_of_parts, codes_of_parts = calibrate_codebook(weight, codebook, moments, 3, 60)
    assert torch.allclose(book, book_of_parts, atol=2e-3)
    assert float((codes == codes_of_parts).float().mean()) > 0.98
    assert float((codes == before).float().mean()) < 0.95  # calibration did something


def test_nearest_is_the_first_of_the_closest() -> None:
    weight, _ = problem()
    some = weight.reshape(-1, 4)
    codebook, codes = kmeans(some, 32)
    assert torch.equal(nearest(some, codebook), closest(some, codebook, 4)[0][:, 0])
    assert torch.equal(nearest(some, codebook), codes)


def test_a_full_temporary_folder_is_named_and_what_is_done_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    class Full:
        def seek(self, place: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "ours"
    shelf = DiskTensors()
    monkeypatch.setattr(shelf, "_file", Full())
    with pytest.raises(InputError) as found, resume.workplace(output, overwrite=False, request={}) as work:
        work.add({"name": "done"})
        shelf.put(0, [torch.zeros(1)])
    assert found.value.message.startswith(f"{tempfile.gettempdir()}: ")
    assert "set TMPDIR" in str(found.value)
    with resume.workplace(output, overwrite=False, request={}) as again:
        assert again.rows == [{"name": "done"}]
        again.folder.joinpath("x").write_text("x", encoding="utf-8")
