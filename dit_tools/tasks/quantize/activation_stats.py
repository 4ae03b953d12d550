"""What layers are fed while the full network samples: second moments and peaks of their inputs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dit_tools.core.errors import MemoryLimitError, ModelError
from dit_tools.core.size import Size
from dit_tools.methods.quantization import ActivationStats
from dit_tools.models.family import ConditionRequest
from dit_tools.models.model import Model
from dit_tools.tasks.quantize import denoising_error
from dit_tools.tasks.quantize.layers import Layers

CALLS = 20
"""Network calls a prompt where times are random."""
SAMPLE = 256
"""Tokens of a layer's input that are kept of each half of the prompts, drawn from all of them."""
EACH = 16
"""Tokens of a call that may be among them, times the weight of the call."""


def check_memory(layers: Layers) -> None:
    """Raise MemoryLimitError when the moments of all layers do not fit into this machine."""
    sums = sum(layer.columns**2 for layer in stats_wanted(layers)) if moments_wanted(layers) else 0
    needed = 4 * (layers.numbers + sums)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if total and needed > total:
        raise MemoryLimitError(
            f"--scheme: calibration needs {needed / 1e9:.0f} GB, this machine has {total / 1e9:.0f} GB",
            "use --scheme rtn, which needs none",
        )


def stats_wanted(layers: Layers) -> list[Any]:
    """The layers whose inputs their schemes want to know."""
    return [layer for layer in layers.linear if layer.layout and layer.packer.calibration]


def moments_wanted(layers: Layers) -> bool:
    """Whether a scheme reads second moments, by far the largest of what is noted."""
    return any(layer.packer.moments for layer in stats_wanted(layers))


def observe(
    model: Model,
    layers: Layers,
    how: str,
    prompts: Sequence[str],
    steps: int | None,
    names: Sequence[str] | None = None,
    clock: Clock | None = None,
) -> dict[str, ActivationStats]:
    """Run the model and return what each layer that is to be packed saw, by its name.

    ``names``: only these. ``clock`` shows during the run what a call counts.

    ``how``: ``trajectory`` samples the prompts as the model is used, so that every time and both
    branches of guidance are seen as often as they occur (Q-Diffusion, arXiv:2302.04304, Sec. 4.2);
    ``ntdc`` does so too and weighs calls by a skewed normal distribution of times (PTQ4DM);
    ``random`` feeds plain noise at random times, as calibration that ignores the process does.
    Raises ModelError when something that is not finite comes by.
    """
    names = [layer.name for layer in stats_wanted(layers)] if names is None else names
    clock = clock or Clock()
    with collect_stats(_module(model), names, clock, moments_wanted(layers)) as sums:
        if how == "trajectory":
            for _ in denoising_error.sample_prompts(model, prompts, steps):
                clock.prompt += 1
        elif how == "ntdc":
            _ntdc(model, prompts, steps, clock)
        else:
            _random(model, prompts, steps or CALLS, clock)
    return stats_of(sums)


def _module(model: Model) -> Any:
    return model.network.module  # type: ignore[attr-defined]


def stats_of(sums: Mapping[str, _Total]) -> dict[str, ActivationStats]:
    """What was added up. Raises ModelError for a layer that was fed what is not finite."""
    for name, total in sums.items():
        if not bool(total.peaks[0].isfinite().all() and total.peaks[1].isfinite().all()):
            raise ModelError(f"calibration: {name} is fed NaN or infinity", "use another model")
    return {name: total.seen() for name, total in sums.items()}


def _random(model: Model, prompts: Sequence[str], calls: int, clock: Clock) -> None:
    import torch

    generator, size = torch.Generator().manual_seed(0), model.defaults.size
    shape = model.family.latent_shape(Size.square(size))
    for clock.prompt, prompt in enumerate(prompts):
        conditions = model.encode(ConditionRequest((prompt,), ("",), Size.square(size)))
        for _ in range(calls):
            t = float(torch.rand((), generator=generator)) * 0.998 + 0.001
            x = model.to_array(torch.randn((1, *shape), generator=generator))
            for condition in conditions.values():
                model.network(**model.family.inputs(x, t, condition))


def _ntdc(model: Model, prompts: Sequence[str], steps: int | None, clock: Clock) -> None:
    """Sample the prompts; a call counts as often as times were drawn that are nearest to its own.

    Times come from a normal distribution around 0.4 whose deviation is 0.5, cut to [0, 1]: later,
    cleaner steps weigh more (PTQ4DM, arXiv:2211.15736, Sec. 3.3).
    """
    for _, times, steps_of in denoising_error.sampling_walks(model, prompts, steps):
        for weight in skew_weights(times[:-1]):
            clock.weight = weight
            next(steps_of)
        clock.prompt += 1


def skew_weights(times: Sequence[float]) -> list[float]:
    """Weights of times with mean 1: the share of 1000 drawn times that are nearest to each."""
    import torch

    generator = torch.Generator().manual_seed(0)
    drawn = torch.normal(0.4, 0.5, (1000,), generator=generator)
    drawn = drawn[(drawn >= 0) & (drawn <= 1)]
    nearest = (drawn[:, None] - torch.tensor(times)[None]).abs().argmin(1)
    share = torch.bincount(nearest, minlength=len(times)) / len(drawn)
    return (share * len(times)).tolist()


@dataclass
class Clock:
    """How much the call that is about to happen counts, and of which prompt it is."""

    weight: float = 1.0
    prompt: int = 0


class _Draw:
    """Some of many tokens, early and late ones alike (reservoir sampling, algorithm R)."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.offered = 0

    def offer(self, some: Any, generator: Any) -> None:
        """Tokens (n, columns), each of which may take the place of one that is kept."""
        import torch

        category = SAMPLE - (0 if self.tokens is None else len(self.tokens))
        first = some[:category].clone()
        self.tokens = first if self.tokens is None else torch.cat([self.tokens, first])
        self.offered += len(first)
        for token in some[category:]:
            self.offered += 1
            place = int(torch.randint(self.offered, (), generator=generator))
            if place < SAMPLE:
                self.tokens[place] = token


class _Total:
    """Sums over calls, over all prompts, and apart for every second one."""

    def __init__(self, name: str, columns: int, moments: bool) -> None:
        import torch

        self.moments: Any = torch.zeros(columns, columns) if moments else None
        self.count = 0.0
        self.peaks = [torch.zeros(columns), torch.zeros(columns)]
        self.draws = [_Draw(), _Draw()]
        # One for each layer, so that what is drawn does not depend on which others are watched.
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def seen(self) -> ActivationStats:
        """Means. Where there was one prompt it stands for both halves."""
        import torch

        first, second = self.draws
        if second.tokens is None:
            second = first
        kept = [draw.tokens for draw in self.draws if draw.tokens is not None]
        return ActivationStats(
            None if self.moments is None else self.moments.div_(max(self.count, 1e-30)),
            self.peaks[0].maximum(self.peaks[1]),
            torch.cat(kept),
            half=self.peaks[0],
            others=second.tokens,
        )

    def add(self, x: Any, clock: Clock) -> None:
        """A call with input ``x`` (tokens, columns)."""
        import torch

        half = clock.prompt % 2
        if self.moments is not None:
            self._add_moments(x, clock.weight)
        self.peaks[half] = self.peaks[half].maximum(x.abs().amax(0).cpu())
        self.count += clock.weight * len(x)
        many = EACH * clock.weight
        count = int(many) + int(float(torch.rand((), generator=self.generator)) < many % 1)
        picked = torch.randint(len(x), (count,), generator=self.generator)
        self.draws[half].offer(x[picked.to(x.device)].cpu(), self.generator)

    def _add_moments(self, x: Any, weight: float) -> None:
        if x.device.type == "cpu":
            self.moments.addmm_(x.T, x, alpha=weight)
        else:
            self.moments.add_((weight * (x.T @ x)).cpu())


@contextmanager
def collect_stats(root: Any, names: Sequence[str], clock: Clock, moments: bool) -> Iterator[Mapping[str, _Total]]:
    """Inside, calls of the named layers add up, each with the weight that the clock shows."""
    sums: dict[str, _Total] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            if not clock.weight:
                return
            x = inputs[0].detach().flatten(0, -2).float()
            if name not in sums:
                sums[name] = _Total(name, x.shape[1], moments)
            sums[name].add(x, clock)

        return hook

    handles = [root.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
