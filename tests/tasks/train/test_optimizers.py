"""Muon's orthogonalization and the learning-rate schedule."""

from __future__ import annotations

import pytest
import torch

from dit_tools.tasks.train.optimizers import Muon, factor, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalize(torch.randn(3, *shape)).float())
    assert singular.min() > 0.5 and singular.max() < 1.4


def test_muon_batches_equal_shapes_without_mixing_them() -> None:
    torch.manual_seed(0)
    start = [torch.randn(8, 8) for _ in range(3)]
    gradients = [torch.randn(8, 8) for _ in range(3)]

    def stepped(indices: list[int]) -> list[torch.Tensor]:
        parameters = [torch.nn.Parameter(start[i].clone()) for i in indices]
        for parameter, i in zip(parameters, indices, strict=True):
            parameter.grad = gradients[i].clone()
        Muon(parameters, lr=0.1).step()
        return [parameter.detach() for parameter in parameters]

    together, alone = stepped([0, 1, 2]), [stepped([i])[0] for i in range(3)]
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=2e-3)
    assert not torch.allclose(together[0], start[0])


def test_the_schedule_warms_up_holds_and_decays_to_zero() -> None:
    values = [factor(step, 100, 10, 0.3) for step in range(100)]
    assert values[0] == pytest.approx(0.1) and values[9] == 1.0 and values[69] == 1.0
    assert values[99] == pytest.approx(1 / 30)
    assert values[70:] == sorted(values[70:], reverse=True)
