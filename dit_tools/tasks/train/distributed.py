"""Several processes that train as one: each takes its share of every batch, gradients are averaged.

Started by ``accelerate launch`` or ``torchrun``, which tell every process its rank. All draw the
same batch from seed and step, so that the mean of their gradients is that of the whole batch; the
first process alone writes, logs and speaks. Batches of a share are equal, so checkpoints can go
from one number of processes to another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dit_tools.core.errors import UsageError


@dataclass(frozen=True)
class Team:
    """One of ``size`` processes; alone by default, and then nothing here does anything."""

    rank: int = 0
    size: int = 1
    state: Any = None  # accelerate.PartialState

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def check(self, batch_size: int, where: str) -> None:
        """Raise UsageError for a batch that cannot be shared out."""
        if batch_size % self.size:
            raise UsageError(
                f"{where}: batch_size {batch_size} on {self.size} processes", f"give a multiple of {self.size}"
            )

    def share(self, batch: Any) -> Any:
        """This process's part of a batch, an array or tensor."""
        return batch[self.rank :: self.size] if self.size > 1 else batch

    def average(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every gradient the mean over the processes."""
        if self.size == 1:
            return
        given = [p for p in parameters if p.requires_grad]
        for p in given:  # a process whose part did not reach it still takes part
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if given:
            flat = self.mean(torch.cat([p.grad.float().flatten() for p in given]))  # type: ignore
            for p, part in zip(given, flat.split([p.numel() for p in given]), strict=True):
                p.grad = part.reshape(p.shape).to(p.dtype)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes."""
        if self.size == 1:
            return value
        from accelerate.utils import reduce

        made: Any = reduce(value, "mean")
        return made

    def any(self, flag: bool) -> bool:
        """Whether it is so for any process."""
        if self.size == 1:
            return flag
        device = self.state.device
        return self.mean(torch.tensor(float(flag), device=device)).item() > 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            self.state.wait_for_everyone()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Let the first process run this before the others do."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


def join_team(device: str) -> tuple[Team, str]:
    """The team that this process was started in, and its own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Team(), device
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    return Team(state.process_index, state.num_processes, state), str(state.device)
