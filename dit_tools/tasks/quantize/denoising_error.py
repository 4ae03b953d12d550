"""Running a model to learn about it: sampled images, noised latents, denoising error."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.plan import Plan
from dit_tools.models.model import Model
from dit_tools.sampling.sampler import Sampler

Array = Any

PROMPT_WORDS = (
    "a red apple",
    "cat face",
    "a house",
    "rocket",
    "a slice of pizza",
    "yellow star",
    "green tree",
    "a cup of coffee",
    "blue car",
    "a smiling sun",
    "red heart",
    "snowman",
    "a guitar",
    "dog face",
    "umbrella",
    "a birthday cake",
)
"""What images are made of when nobody says."""
LABELS = ("207", "1", "22", "417", "973", "88", "360", "562", "0", "980", "15", "285", "404", "555", "700", "850")
"""The same for models that take a class."""
TIMES = (0.2, 0.5, 0.8)
"""Where the denoising error is measured."""


def default_prompts(model: Model, count: int, skip: int = 0) -> tuple[str, ...]:
    """``count`` prompts that the model understands, beginning behind the first ``skip``."""
    known = LABELS if model.family.name == "dit" else PROMPT_WORDS
    return tuple(known[(skip + i) % len(known)] for i in range(count))


def plan_of(model: Model, steps: int | None) -> Plan:
    """The model's own way of sampling, with noise that does not depend on the device."""
    return Plan.parse(
        steps or model.defaults.steps,
        {
            "schedule": model.defaults.schedule,
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": f"cfg:scale={float(model.defaults.cfg)}",
            "cache": "none",
        },
    )


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt's conditions, final latents (1, C, h, w), pixels (C, H, W), seconds of sampling."""

    conditions: Mapping[str, Any]
    latents: Array
    pixels: Array
    seconds: float


def sample_prompts(model: Model, prompts: Sequence[str], steps: int | None) -> Iterator[SampledPrompt]:
    """An image a prompt, one at a time; the seed is the prompt's number."""
    for conditions, _, steps_of in sampling_walks(model, prompts, steps):
        began = time.perf_counter()
        *_, last = steps_of
        seconds = time.perf_counter() - began
        yield SampledPrompt(conditions, last.x, model.codec.decode(last.x)[0], seconds)


def sampling_walks(
    model: Model, prompts: Sequence[str], steps: int | None
) -> Iterator[tuple[Mapping[str, Any], tuple[float, ...], Iterator[Any]]]:
    """Conditions, times and the steps of sampling each prompt; the seed is the prompt's number."""
    plan = plan_of(model, steps)
    for seed, prompt in enumerate(prompts):
        sampler = Sampler(model, plan)
        conditions = sampler.conditions(sampler.request((prompt,)))
        noise = sampler.noise([seed])
        yield conditions, sampler.times(), sampler.sample(noise.fresh(), conditions, noise)


@dataclass(frozen=True)
class Probe:
    """Arguments of the network for a latent at time ``t``, and the noise that is in it."""

    x: Array
    t: float
    noise: Array
    condition: Mapping[str, Any]


def with_conditions(found: Sequence[Probe], drawn: Sequence[SampledPrompt]) -> list[Probe]:
    """The same probes with conditions that another model gave to the same prompts."""
    each = len(found) // len(drawn)
    return [replace(p, condition=drawn[i // each].conditions["cond"]) for i, p in enumerate(found)]


def probes(model: Model, drawn: Sequence[SampledPrompt]) -> list[Probe]:
    """Each drawn latent, noised to every one of ``TIMES``."""
    import torch

    made = []
    for seed, one in enumerate(drawn):
        generator = torch.Generator().manual_seed(seed)
        for t in TIMES:
            noise = torch.randn(one.latents.shape, generator=generator).to(one.latents)
            x = model.path.alpha(t) * one.latents + model.path.sigma(t) * noise
            made.append(Probe(x, t, noise, one.conditions["cond"]))
    return made


def predict_noise(model: Model, found: Sequence[Probe]) -> list[Array]:
    """The noise that the network finds in each probe."""
    import torch

    family, made = model.family, []
    for p in found:
        x = p.x if model.backend == "torch" else p.x.cpu().float().numpy()
        raw = model.network(**family.inputs(x, p.t, p.condition))
        made.append(torch.as_tensor(family.read(raw, x, p.t).eps).to(p.noise))
    return made


def mean_square(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Mean over all numbers of the squared difference."""
    return math.fsum(float((p - q).square().mean()) for p, q in zip(a, b, strict=True)) / len(a)


def loss_db(base: float, now: float) -> float:
    """A rise of the denoising error in dB."""
    return 10 * math.log10(now / base)
