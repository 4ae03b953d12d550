"""The one training loop: any denoiser, its objectives, several processes, checkpoints to the bit.

    batch ──share of this process──parts──> TrainingStep ──objectives──> losses ──> gradients
                                                                                        │
    checkpoint <── moving average <── optimizers <── mean over processes, clipped ──────┘

What is trained is a ``Subject``: the networks of a new model (``text_to_image``) or the adapter of a
finished model of any family (``train_adapter``). A batch depends on nothing but seed, step and
objectives, so that a run which was stopped ends with the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import torch

from dit_tools.core.errors import ModelError
from dit_tools.core.paths import Path
from dit_tools.methods.objectives import Condition, Denoise, NetworkInfo, TrainingStep
from dit_tools.tasks.train import checkpoint, losses
from dit_tools.tasks.train.optimizers import Optimizers, factor
from dit_tools.tasks.train.recipe import Adapter, Transformer
from dit_tools.tasks.train.training_run import Interrupted, Meter, TrainingRun, check_loss


@dataclass
class Batch:
    """What one step trains on.

    ``rows`` (B,): which images; ``x0``, ``noise`` (B, C, ...); ``condition``: a list of conditions,
    or a mapping of tensors (B, ...); ``t`` (B,): times.
    """

    rows: np.ndarray
    x0: torch.Tensor
    condition: Condition
    t: torch.Tensor
    noise: torch.Tensor

    def part(self, chosen: slice) -> Batch:
        """Some of the samples."""
        own = self.condition
        given = {key: value[chosen] for key, value in own.items()} if isinstance(own, Mapping) else own[chosen]
        return Batch(self.rows[chosen], self.x0[chosen], given, self.t[chosen], self.noise[chosen])


class Subject(ABC):
    """What a run trains.

    ``settings``: the recipe's section; ``denoise``: the network, with gradients; ``teacher``: its
    moving average, or None; ``path``: the noise path; ``steps``: of the run in all.
    """

    stage: ClassVar[str]
    checkpoint_name: ClassVar[str]
    settings: Transformer | Adapter
    denoise: Denoise
    teacher: Denoise | None
    path: Path
    steps: int
    optimizers: Optimizers
    compiles: ClassVar[bool] = False  # whether torch.compile takes a step

    @abstractmethod
    def network(self) -> NetworkInfo:
        """What objectives may know of the network."""

    @abstractmethod
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """What is trained."""

    @abstractmethod
    def batch(self, step: int, terms: losses.Terms) -> Batch:
        """The batch of a step, on the device, its noise not yet coupled to the images."""

    def parts(self, batch: Batch) -> list[slice]:
        """How a batch goes through the network: by default all at once."""
        return [slice(None)]

    def context(self) -> AbstractContextManager[Any]:
        """What is entered around forward and backward pass."""
        return nullcontext()

    @abstractmethod
    def average(self) -> None:
        """Let the moving average follow."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, next to step, optimizers and objectives."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it. Raises KeyError, ValueError or RuntimeError for that of another run."""

    @abstractmethod
    def show(self, step: int) -> None:
        """Write samples; called in the first process only."""


class Trainer:
    """The state of a training run and its loop.

    Raises UnsupportedError when an objective cannot be applied, UsageError for a batch that the
    processes cannot share.
    """

    def __init__(self, subject: Subject, seed: int, session: TrainingRun):
        self.subject, self.session, self.step = subject, session, 0
        settings = subject.settings
        chosen = losses.parse_objectives(settings.objectives, "transformer")
        session.team.check(settings.batch_size, f"[{subject.stage}]")
        network = subject.network() if chosen else None
        self.terms = losses.Terms(chosen, network, subject.path, seed, settings.learning_rate, session)
        self.plain = torch.compile(losses.plain) if session.compiling and subject.compiles else losses.plain
        self.losses: dict[str, torch.Tensor] = {}

    @property
    def steps(self) -> int:
        """Steps of the run in all."""
        return self.subject.steps

    def advance(self) -> float:
        """Make one step; returns its loss. ``losses`` then holds the parts that it is the sum of."""
        subject, team = self.subject, self.session.team
        whole = subject.batch(self.step, self.terms)
        whole.noise = self.terms.couple(whole.x0, whole.noise, self.step)
        batch = whole.part(slice(team.rank, None, team.size)) if team.size > 1 else whole
        parts = subject.parts(batch)
        self.losses = {}
        for index, chosen in enumerate(parts):
            step = self._train_on(batch.part(chosen) if len(parts) > 1 else batch, index, len(parts))
        team.average(subject.parameters())
        means = team.mean(torch.stack([*self.losses.values()]))
        self.losses = dict(zip(self.losses, means, strict=True))
        number = _total(means).item()
        check_loss(number, subject.stage, self.step + 1)
        torch.nn.utils.clip_grad_norm_(subject.parameters(), 1.0)
        settings = subject.settings
        scale = factor(self.step, self.steps, settings.warmup_steps, settings.decay_fraction)
        subject.optimizers.step(scale)
        self.terms.step(scale)
        subject.average()
        self.terms.observe(number, step)
        self.step += 1
        return number

    def _train_on(self, batch: Batch, index: int, parts: int) -> TrainingStep:
        """Add the gradients of one of the ``parts`` of a batch, and its losses to the step's."""
        subject = self.subject
        step = TrainingStep(
            subject.denoise,
            subject.teacher,
            batch.x0,
            batch.condition,
            batch.t,
            batch.noise,
            subject.path,
            batch.rows,
            self.step,
            self.steps,
        )
        with subject.context():
            with self.session.autocast():
                if self.terms.hooks:
                    found = self.terms.loss(step, index)
                else:
                    given = (batch.x0, batch.condition, batch.t, batch.noise, subject.path)
                    found = {"denoising": self.plain(subject.denoise, *given)}
                values = [value / parts if parts > 1 else value for value in found.values()]
                total = _total(values)
            total.backward()
        for name, value in zip(found, values, strict=True):
            own = value.detach()
            self.losses[name] = self.losses[name] + own if name in self.losses else own
        return step

    def resume(self) -> None:
        """Go on from the run's checkpoint. Raises ModelError when it is that of another recipe."""
        path = self.session.run / self.subject.checkpoint_name
        if (state := checkpoint.load_checkpoint(path, self.session.device)) is None:
            return
        try:
            self.subject.load_state_dict(state)
            self.subject.optimizers.load_state_dict(state["optimizers"])
            self.terms.load_state_dict(state.get("objectives", {}))
        except (KeyError, ValueError, RuntimeError):
            raise ModelError(f"{path}: made by another recipe or model", "restore it, or add --overwrite") from None
        self.step = state["step"]

    def save(self) -> None:
        """Write the run's checkpoint."""
        state = {"step": self.step, **self.subject.state_dict(), "optimizers": self.subject.optimizers.state_dict()}
        if more := self.terms.state_dict():
            state["objectives"] = more
        self.session.save(self.subject.checkpoint_name, state)

    def run(self) -> None:
        """Train to the end, or to ``session.stop`` steps.

        Raises Interrupted when the user stopped it, Diverged, InputError for a full disk.
        """
        session, subject = self.session, self.subject
        end = min(self.steps, session.stop or self.steps)
        meter = Meter(session, subject.stage, self.step, self.steps, subject.settings.batch_size)
        while self.step < end:
            self.advance()
            meter.advance(self.losses)
            done, leave = self.step, session.interrupted
            if done % session.save_every == 0 or done == end or leave:
                self.save()
                meter.log()
            if session.team.leads and (done % session.sample_every == 0 or done == end):
                subject.show(done)
            if leave and done < end:
                raise Interrupted


def _total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    return reduce(torch.add, values)
