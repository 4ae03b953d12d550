"""One module becomes one graph; what ONNX lacks is written in what it has, and only meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from dit_tools.models.onnx_recipe import replaced_attribute
from dit_tools.tasks.export import trace as tracing
from dit_tools.tasks.export.trace import trace


def exported(function: Any, path: Path, *values: Any, opset: int = 17, **dynamic: Any) -> Any:
    """An ONNX Runtime session of a function of tensors named a, b, ..."""

    class Module(torch.nn.Module):
        def forward(self, **inputs: Any) -> Any:
            return function(*inputs.values())

    given = dict(zip("abc", values, strict=False))
    trace(Module(), given, "out", path / "x.onnx", dynamic, opset)
    return onnxruntime.InferenceSession(path / "x.onnx", providers=["CPUExecutionProvider"])


def test_names_free_axes_and_opset(tmp_path: Path) -> None:
    session = exported(
        lambda a, b: a @ b, tmp_path, torch.randn(2, 3), torch.randn(3, 4), opset=18, a={0: "rows"}, out={0: "rows"}
    )
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("a", ["rows", 3]), ("b", [3, 4])]
    a, b = np.ones((7, 3), np.float32), np.ones((3, 4), np.float32)
    assert (session.run(["out"], {"a": a, "b": b})[0] == 3).all()
    assert onnx.load(tmp_path / "x.onnx").opset_import[0].version == 18


def test_rms_norm_in_parts() -> None:
    x, weight = torch.randn(2, 5, 8) * 3, torch.randn(8)
    for arguments in ((weight, 1e-5), (None, None), (weight, None)):
        got = tracing._rms_norm(x, (8,), *arguments)
        torch.testing.assert_close(got, functional.rms_norm(x, (8,), *arguments), rtol=1e-6, atol=1e-6)


def test_rms_norm_is_exported(tmp_path: Path) -> None:
    norm, x = torch.nn.RMSNorm(8).requires_grad_(False), torch.randn(2, 8)
    session = exported(norm, tmp_path, x)
    torch.testing.assert_close(torch.as_tensor(session.run(None, {"a": x.numpy()})[0]), norm(x))


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 3, 4)])
def test_squeeze_writes_no_condition(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = torch.randn(shape)
    session = exported(lambda a: a.squeeze(1) * 2, tmp_path, x, a={0: "batch", 2: "width"})
    assert session.run(None, {"a": x.numpy()})[0].shape == tuple(x.squeeze(1).shape)
    kinds = {node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node}
    assert "If" not in kinds


@pytest.mark.parametrize("axes", [(1, -1), (-1, 1), (0, 2)])
def test_movedim_may_be_negative(axes: tuple[int, int], tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4, 5)
    session = exported(lambda a: a.movedim(*axes) + 0, tmp_path, x)
    assert np.array_equal(session.run(None, {"a": x.numpy()})[0], x.movedim(*axes).numpy())


def test_nearest_exact_by_whole_factors_is_nearest(tmp_path: Path) -> None:
    x = torch.randn(1, 2, 3, 4)

    def larger(a: Any) -> Any:
        return functional.interpolate(a, scale_factor=(2.0, 2.0), mode="nearest-exact")

    session = exported(larger, tmp_path, x)
    assert np.array_equal(session.run(None, {"a": x.numpy()})[0], larger(x).numpy())


def test_torch_is_itself_again_even_after_a_failure(tmp_path: Path) -> None:
    before = (torch.Tensor.squeeze, torch.Tensor.movedim, functional.rms_norm)
    with pytest.raises(ZeroDivisionError):
        exported(lambda a: 1 / 0, tmp_path, torch.ones(1))
    assert before == (torch.Tensor.squeeze, torch.Tensor.movedim, functional.rms_norm)


def test_replaced_gives_back_what_was_inherited() -> None:
    class Owner:
        value = 1

    owner = Owner()
    with replaced_attribute(owner, "value", 2):
        assert owner.value == 2
    assert owner.value == 1 and "value" not in vars(owner)
    with replaced_attribute(Owner, "value", 3):
        assert owner.value == 3
    assert Owner.value == 1
