"""The optimizer pair of every stage: Muon for hidden matrices and kernels, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from dit_tools.tasks.train.training_run import has_bfloat16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, quintic coefficients


def orthogonalize(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearest semi-orthogonal matrices of a stack ``g`` (N, rows, columns), by Newton-Schulz.

    In bfloat16, as published, where the device multiplies that itself; else in float32, for a CPU
    that does not takes four times as long as for a step's forward and backward pass.
    """
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if has_bfloat16(str(g.device)) else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz (Jordan et al. 2024), equal shapes in one batch.

    Differs from torch.optim.Muon in that batching only: on a small CPU its hundreds of separate
    small products took longer than the forward and backward pass together. A convolution's kernel
    is the matrix of its outputs by everything that they see.
    The update has the root mean square of AdamW's: ``0.2 sqrt(max(rows, columns))``.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault((len(p), p[0].numel()), []).append(p)
            for shape, parameters in shapes.items():
                directions = torch.stack([self._direction(p, group["momentum"]).reshape(shape) for p in parameters])
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(parameters, orthogonalize(directions), strict=True):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.sub_(update.reshape(p.shape), alpha=scale)

    def _direction(self, p: Any, momentum: float) -> torch.Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        buffer = state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)  # Nesterov


def in_blocks(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon takes this parameter of a transformer: the matrices inside its blocks."""
    inside = "block" in name and parameter.ndim == 2
    return inside and "table" not in name and "relative_attention" not in name


def is_kernel(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon takes this parameter of an autoencoder: kernels between hidden channels."""
    return parameter.ndim == 4 and min(parameter.shape[:2]) > 4 and "quant_conv" not in name


class Optimizers:
    """Optimizers of one run, each with its peak learning rate.

    All follow one schedule: linear warm-up, constant, linear decay to zero over the last part.
    """

    def __init__(self, *pairs: tuple[torch.optim.Optimizer, float]):
        self.all = [optimizer for optimizer, _ in pairs]
        self.peaks = [peak for _, peak in pairs]

    def step(self, factor: float) -> None:
        """One update at ``factor`` times the peak rates; clears the gradients."""
        for optimizer, peak in zip(self.all, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list:
        """State of both optimizers."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, state: list) -> None:
        """Restore what ``state_dict`` returned."""
        for optimizer, part in zip(self.all, state, strict=True):
            optimizer.load_state_dict(part)


def muon_and_adamw(
    modules: Iterable[nn.Module],
    learning_rate: float,
    muon_rate: float,
    hidden: Callable[[str, torch.Tensor], bool] = in_blocks,
    weight_decay: float = 0.0,
) -> Optimizers:
    """Muon on the parameters that ``hidden`` picks, AdamW on everything else."""
    named = [pair for module in modules for pair in module.named_parameters()]
    inside = [p for name, p in named if hidden(name, p)]
    other = [p for name, p in named if not hidden(name, p)]
    rest = torch.optim.AdamW(other, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    return Optimizers((Muon(inside, lr=muon_rate), muon_rate), (rest, learning_rate))


def adamw(parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizers:
    """AdamW without weight decay."""
    return Optimizers((torch.optim.AdamW(parameters, learning_rate, weight_decay=0.0), learning_rate))


def factor(step: int, steps: int, warmup: int, decay_fraction: float) -> float:
    """Schedule factor in [0, 1] at ``step`` of ``steps``."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (steps * decay_fraction))
