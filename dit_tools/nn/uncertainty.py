"""Learned weights of several losses by their uncertainty."""

from __future__ import annotations

import torch
from torch import nn


class Uncertainty(nn.Module):
    """Kendall et al. 2018: ``sum L_i / (2 s_i^2) + ln s_i`` with learned ``ln s_i``."""

    def __init__(self, tasks: int):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """A scalar of losses (tasks,) and the share of the batch that each has (tasks,)."""
        each = losses * torch.exp(-2 * self.log_sigma) / 2 + self.log_sigma
        return 2 * (each * share).sum()
