"""Trains the networks of ``dit superres`` and ``dit restore`` from a recipe.

Loss: the mean absolute error of the residual. A run leaves ``checkpoint.pt``, ``log.jsonl`` and,
when it is done, ``model.safetensors`` with the averaged weights in half precision.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from dit_tools.core.errors import ModelError
from dit_tools.nn.photo_networks import Restorer, Upscaler
from dit_tools.tasks.train import checkpoint
from dit_tools.tasks.train.optimizers import Optimizers, factor, is_kernel, muon_and_adamw
from dit_tools.tasks.train.photo_recipe import PhotoRecipe, Training
from dit_tools.tasks.train.photographs import Patches, data_root, read
from dit_tools.tasks.train.training_run import Interrupted, Meter, TrainingRun, check_loss, check_space

CHECKPOINT, WEIGHTS = "checkpoint.pt", "model.safetensors"


def build(recipe: PhotoRecipe) -> Any:
    """The untrained network of a recipe."""
    n = recipe.network
    if recipe.task == "superres":
        return Upscaler(n.width, n.blocks[0], n.scales)
    return Restorer(n.widths, n.blocks)


def train(recipe: PhotoRecipe, session: TrainingRun, folder: str | None = None) -> Path:
    """Train, or go on where an earlier session stopped; the file of the finished weights.

    Raises Interrupted when the user stopped it or ``session.stop`` steps were made; Diverged;
    InputError for data or disk; ModelError for a checkpoint of another recipe.
    """
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(session.device, memory_format=torch.channels_last)
    check_space(session.run, 16 * sum(p.numel() for p in model.parameters()))
    t = recipe.training
    optimizers = muon_and_adamw([model], t.learning_rate, t.muon_learning_rate, is_kernel)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(t.ema_decay)
    )
    first, spent = _resume(session, model, average, optimizers)
    root = data_root(folder)
    patches = Patches(recipe, [read(each, root, session.tell) for each in recipe.data])
    clock, meter = _Clock(spent), Meter(session, recipe.name, first, t.steps, t.batch_size)
    for step in range(first, t.steps):
        value = _loss(recipe, patches, model, step, session)
        value.backward()
        check_loss(value.item(), recipe.name, step + 1)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(_rate(t, step))
        average.update_parameters(model)
        meter.advance({"loss": value})
        leave = session.interrupted or step + 1 == session.stop
        if (step + 1) % session.save_every == 0 or step + 1 == t.steps or leave:
            _save(session, step + 1, clock.spent, model, average, optimizers)
            meter.log(cpu_seconds=round(clock.spent))
        if leave and step + 1 < t.steps:
            raise Interrupted
    return _finish(session.run / WEIGHTS, average.module, recipe, clock.spent)


def _rate(training: Training, step: int) -> float:
    """The factor of the peak rates: warm-up, constant, linear decay, in each part of the run."""
    begin = 0
    for end in (*training.earlier, training.steps):
        if step < end:
            return factor(step - begin, end - begin, training.warmup_steps, training.decay_fraction)
        begin = end
    return 0.0


class _Clock:
    """Processor seconds over all sessions."""

    def __init__(self, before: float):
        self.before, self.cpu = before, time.process_time()

    @property
    def spent(self) -> float:
        return self.before + time.process_time() - self.cpu


def _loss(recipe: PhotoRecipe, patches: Patches, model: Any, step: int, session: TrainingRun) -> torch.Tensor:
    if recipe.task == "superres":
        scale, given, wanted = patches.upscaling(step)
    else:
        scale, (given, wanted) = None, patches.restoring(step)
    with session.autocast():
        x = _tensor(given, session.device)
        residual = model(x) if scale is None else model(x, scale)
    return (residual.float() - _tensor(wanted, session.device)).abs().mean()


def _tensor(batch: Any, device: str) -> torch.Tensor:
    """(B, H, W, C) as (B, C, H, W), in torch's channels_last layout."""
    return torch.from_numpy(batch).to(device).permute(0, 3, 1, 2)


def _save(session: TrainingRun, step: int, spent: float, model: Any, average: Any, optimizers: Optimizers) -> None:
    session.save(CHECKPOINT, {
        "step": step, "cpu_seconds": spent, "model": model.state_dict(),
        "average": average.state_dict(), "optimizers": optimizers.state_dict(),
    })  # fmt: skip


def _resume(session: TrainingRun, model: Any, average: Any, optimizers: Optimizers) -> tuple[int, float]:
    path = session.run / CHECKPOINT
    state = checkpoint.load_checkpoint(path)
    if state is None:
        return 0, 0.0
    try:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizers.load_state_dict(state["optimizers"])
        return int(state["step"]), float(state["cpu_seconds"])
    except (KeyError, ValueError, RuntimeError):
        raise ModelError(f"{path}: made by another recipe", "restore the recipe, or add --overwrite") from None


def _finish(path: Path, model: Any, recipe: PhotoRecipe, spent: float) -> Path:
    """Write the averaged weights in half precision."""
    from safetensors.torch import save_file

    weights = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    beside = path.with_suffix(".tmp")
    notes = {"recipe": recipe.name, "steps": str(recipe.training.steps),
             "cpu_seconds": str(round(spent))}  # fmt: skip
    save_file(weights, beside, metadata=notes)
    beside.replace(path)
    return path
