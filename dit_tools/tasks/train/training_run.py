"""How a recipe is run: where, on what, how often it saves, and who hears of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dit_tools.core.errors import DitError, InputError, UnsupportedError
from dit_tools.tasks.train import checkpoint
from dit_tools.tasks.train.distributed import Team

Tell = Callable[[dict[str, Any]], None]
SPACE = 3  # checkpoints that must fit on the disk: the last, the next, and images


@dataclass
class TrainingRun:
    """One start of a training run.

    Args:
        run: folder of checkpoints, log, samples and the finished pipeline.
        device: of torch, for example ``cpu`` or ``cuda:0``.
        dtype: ``bfloat16`` (autocast) or ``float32``; ``auto`` becomes what the device is made for.
        compiling: compile the transformer's step.
        stop: end this session after so many steps of the stage, as a kill after a checkpoint would.
        save_every, sample_every: steps between checkpoints and between sample sheets.
        tell: receives every event.
        interrupts: its ``stop_requested`` ends the session after the step, saved.
        team: the processes that train together; only the first one writes and tells.
    """

    run: Path
    device: str = "cpu"
    dtype: str = "auto"
    compiling: bool = False
    stop: int | None = None
    save_every: int = 50
    sample_every: int = 200
    tell: Tell = lambda event: None
    interrupts: Any = None
    team: Team = Team()
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.dtype == "auto":
            self.dtype = "bfloat16" if has_bfloat16(self.device) else "float32"

    def log(self, event: dict[str, Any]) -> None:
        """Append an event to ``log.jsonl`` and tell it."""
        if not self.team.leads:
            return
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")
        self.tell(event)

    def autocast(self) -> Any:
        """The context of the forward pass."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.dtype == "bfloat16")

    @property
    def interrupted(self) -> bool:
        """Whether the user asked to stop; all processes of a team must ask this together."""
        return self.team.any(bool(self.interrupts and self.interrupts.stop_requested))

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint of the run. Raises InputError when the disk is full."""
        if self.team.leads:
            checkpoint.save_checkpoint(self.run / name, state)


class Meter:
    """Loss, speed and remaining time of one stage: told after every step, logged with checkpoints.

    ``first``: the step that this session starts from; ``steps``: of the stage in all.
    """

    def __init__(self, session: TrainingRun, stage: str, first: int, steps: int, batch_size: int):
        self.session, self.stage, self.steps, self.batch_size = session, stage, steps, batch_size
        self.first = self.done = first
        self.start = time.monotonic()
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def advance(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Count a step whose loss is the sum of these."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self.done, self._count = self.done + 1, self._count + 1
        if self.session.team.leads:
            self.session.tell({"type": "progress", "stage": self.stage, "step": self.done, "steps": self.steps})

    def log(self, **more: Any) -> None:
        """Log the mean loss since the last entry, with the parts of a loss that has several."""
        means = {name: value.item() / self._count for name, value in self._sums.items()}
        parts = {name: round(value, 4) for name, value in means.items()}
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)
        self.session.log(
            {
                "type": "step",
                "stage": self.stage,
                "step": self.done,
                "steps": self.steps,
                "loss": round(sum(means.values()), 4),
                **({"losses": parts} if len(parts) > 1 else {}),
                **more,
                "images_per_second": round(rate * self.batch_size, 1),
                "seconds_left": round((self.steps - self.done) / rate),
            }
        )
        self._sums, self._count = {}, 0


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; its checkpoint is written."""


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 itself: a CPU that does not is several times slower."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not device.startswith("cpu"):
        return False
    able = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in able)


def check_device(name: str) -> str:
    """The device to train on; ``auto`` takes CUDA where there is one.

    Raises UnsupportedError for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        raise UnsupportedError(f"--device {name}: no such device", "use cpu or cuda") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available() and (kind.index or 0) < max(1, torch.cuda.device_count())}
    if not there.get(kind.type, False):
        raise UnsupportedError(f"--device {name}: not available here", "use --device cpu")
    return name


def check_space(run: Path, size: int) -> None:
    """Raise InputError when the disk of ``run`` cannot hold checkpoints of ``size`` bytes."""
    place = run
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < SPACE * size:
        raise InputError(
            f"-o {run}: checkpoints need {SPACE * size / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
            "free some space, or choose another disk",
        )


def check_loss(value: float, stage: str, step: int) -> None:
    """Raise DitError when training has diverged; the last checkpoint stays."""
    if value != value or value in (float("inf"), float("-inf")):
        raise Diverged(
            f"{stage}: the loss is NaN or infinite at step {step}",
            "lower the learning rate; the last checkpoint is as it was",
        )


class Diverged(DitError):
    """The loss became NaN or infinite."""
