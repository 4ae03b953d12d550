"""Networks as objectives see them: called with a batch of times, answering with a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dit_tools.core.blocks import Block
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.methods.objectives import Condition
from dit_tools.models.blocks import blocks
from dit_tools.models.families.pixart import FAMILY
from dit_tools.models.model import Model
from dit_tools.tasks.train import collate
from dit_tools.tasks.train.networks import Networks

FLOW = Flow()


class NetworksDenoise:
    """Text encoder and transformer of a new model; a condition is ``{"ids", "mask"}``, (B, L) each."""

    def __init__(self, networks: Networks):
        self.networks = networks

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer's blocks."""
        return blocks(self.networks.transformer, FAMILY.stacks, FAMILY.blocks)

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """The transformer's parameters that have gradients."""
        return [p for p in self.networks.transformer.parameters() if p.requires_grad]

    def __call__(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        """The velocity (B, C, h, w)."""
        raw = self.networks(x, t, condition["ids"], condition["mask"])
        return Prediction(raw.float(), "flow", x, t, FLOW)


class ModelDenoise:
    """A loaded model of any family; a condition is a list with that of each sample, batch 1."""

    def __init__(self, model: Model):
        self.model = model
        self.network: Any = model.network

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer's blocks."""
        return self.network.blocks()

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """The parameters that have gradients: those of an adapter."""
        return [p for p in self.network.module.parameters() if p.requires_grad]

    def inputs(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> list[dict[str, Any]]:
        """The network's arguments for each sample, as a family makes them at one time."""
        family, times = self.model.family, t.tolist()
        return [family.inputs(x[i : i + 1], times[i], condition[i]) for i in range(len(times))]

    def __call__(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        """The native prediction (B, C, ...): in one call where the arguments can be joined."""
        inputs = self.inputs(x, t, condition)
        if collate.joins(inputs):
            raw = collate.call(self.network, inputs)
        else:
            raw = torch.cat([collate.call(self.network, [each]) for each in inputs])
        times: Any = t
        return self.model.family.read(raw.float(), x, times)


class ParameterAverage:
    """An exponential moving average of some parameters, put in their place while a context lasts."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float):
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Follow the parameters: ``decay`` of the old value stays, none of it in the first step."""
        weight = 1 - self.decay if self.count else 1.0
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter.detach(), weight)
        self.count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network use the averages. A graph that was recorded before stays valid."""
        own = [p.data for p in self.parameters]
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.data = value
        try:
            yield
        finally:
            for parameter, value in zip(self.parameters, own, strict=True):
                parameter.data = value


class AveragedDenoise:
    """A denoiser with the moving average of what is trained, without gradients."""

    def __init__(self, denoise: ModelDenoise, average: ParameterAverage):
        self.denoise, self.average = denoise, average

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer's blocks."""
        return self.denoise.blocks

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """None: a teacher is not trained."""
        return ()

    def __call__(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        """The prediction of the averaged network."""
        with torch.no_grad(), self.average.in_place():
            return self.denoise(x, t, condition)
