"""``--max-loss``: as few bits a layer as keep the denoising error within a limit."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.methods.quantization import ActivationStats, Scheme
from dit_tools.models.model import Model
from dit_tools.tasks.quantize import denoising_error
from dit_tools.tasks.quantize.layers import Layer, Layers

BITS = (8, 4, 3, 2)
TRIES = 5
"""Errors of layers do not quite add up: the budget is halved until the whole keeps the limit."""


def limit_of(text: str) -> float:
    """DB of ``0.5dB`` or ``0.5``. Raises UsageError."""
    try:
        value = float(text.strip().lower().removesuffix("db"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 20:
        raise UsageError(f"--max-loss {text}: not a loss", "give dB above 0, such as 0.5dB")
    return value


def check_scheme(scheme: Scheme, target: Any = None) -> None:
    """Raise UnsupportedError for a scheme or a target without a choice of bits."""
    if target is not None and not target.mixed:
        raise UnsupportedError(f"--max-loss: --target {target.info.name} has one number of bits", "use --target folder")
    if not hasattr(scheme, "bits"):
        raise UnsupportedError(f"--max-loss: --scheme {scheme.info.name} has one number of bits", "use --scheme rtn")
    if scheme.tuning:
        raise UnsupportedError(
            f"--max-loss: --scheme {scheme.info.name} tunes weights for the bits that it has",
            "use --scheme q-diffusion",
        )


def allocate(
    model: Model,
    layers: Layers,
    seen: Mapping[str, ActivationStats],
    prompts: Sequence[str],
    steps: int | None,
    limit: float,
    tell: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Layers:
    """The layers with bits chosen so that the denoising error rises by at most ``limit`` dB.

    Each layer alone is packed with 4, 3 and 2 bits, and the change of the network's output is
    measured: its sensitivity (ViDiT-Q, arXiv:2406.02540, allocates bits by such measurements).
    From eight bits everywhere, the layer that gains most bytes for its error is lowered, as long as
    the sum of errors stays in the budget. The outcome is measured as a whole.
    ``tell`` hears ``{"type": "sensitivity", "name", "errors"}``.
    Raises UnsupportedError when eight bits everywhere lose more than the limit.
    """
    drawn = list(denoising_error.sample_prompts(model, prompts, steps))
    probes = denoising_error.probes(model, drawn)
    exact = denoising_error.predict_noise(model, probes)
    base = denoising_error.mean_square(exact, [probe.noise for probe in probes])
    free = [layer for layer in layers.linear if layer.layout and layer.why == "plain"]
    errors: dict[str, dict[int, float]] = {}
    for layer in free:
        found = {}
        for bits in BITS[1:]:
            with run_packed(model, {layer.name: (layer, _with(layer, bits))}, seen):
                found[bits] = denoising_error.mean_square(denoising_error.predict_noise(model, probes), exact)
        found[8] = found[4] / 256  # 6.02 dB a bit
        errors[layer.name] = found
        tell({"type": "sensitivity", "name": layer.name, "errors": found})
    budget = base * (10 ** (limit / 10) - 1)
    costs = {layer.name: (_sizes(layer), errors[layer.name]) for layer in free}
    for share in [0.5**i for i in range(TRIES)] + [0.0]:
        bits = choose_bits(costs, share * budget)
        made = {layer.name: _with(layer, bits[layer.name]) for layer in free}
        with run_packed(model, {layer.name: (layer, made[layer.name]) for layer in free}, seen):
            noise = [probe.noise for probe in probes]
            now = denoising_error.mean_square(denoising_error.predict_noise(model, probes), noise)
        if denoising_error.loss_db(base, now) <= limit:
            return layers.packed_by(made)
    raise UnsupportedError(f"--max-loss {limit:g}dB: eight bits lose more", "allow more, or --keep some layers")


def choose_bits(layers: Mapping[str, tuple[Mapping[int, int], Mapping[int, float]]], budget: float) -> dict[str, int]:
    """Bits per layer: from the most on, the cheapest step down in error per byte saved, in budget.

    ``layers``: name -> (bytes by bits, error by bits).
    """
    ladder = {name: sorted(sizes, reverse=True) for name, (sizes, _) in layers.items()}
    chosen = {name: rungs[0] for name, rungs in ladder.items()}
    spent = sum(errors[chosen[name]] for name, (_, errors) in layers.items())
    queue: list[tuple[float, str, int]] = []

    def offer(name: str) -> None:
        sizes, errors = layers[name]
        now = chosen[name]
        for lower in ladder[name][ladder[name].index(now) + 1 :]:
            saved = sizes[now] - sizes[lower]
            if saved > 0:
                heapq.heappush(queue, ((errors[lower] - errors[now]) / saved, name, lower))

    for name in layers:
        offer(name)
    while queue:
        _, name, lower = heapq.heappop(queue)
        errors = layers[name][1]
        more = errors[lower] - errors[chosen[name]]
        if lower < chosen[name] and spent + more <= budget:
            spent += more
            chosen[name] = lower
            offer(name)
    return chosen


def with_bits(layers: Layers, bits: Mapping[str, int]) -> Layers:
    """The layers with bits that were chosen before."""
    plain = [la for la in layers.linear if la.layout and la.why == "plain" and la.name in bits]
    return layers.packed_by({layer.name: _with(layer, bits[layer.name]) for layer in plain})


def _with(layer: Layer, bits: int) -> Scheme:
    return replace(layer.packer, bits=bits)  # type: ignore[type-var]


def _sizes(layer: Layer) -> dict[int, int]:
    return {bits: _with(layer, bits).layout(layer.rows, layer.columns).nbytes for bits in BITS}


@contextmanager
def run_packed(model: Model, chosen: Mapping[str, tuple[Layer, Scheme]], seen: Mapping[str, ActivationStats]) -> Any:
    """Inside, these layers of the network run packed."""
    from dit_tools.nn.packed import linear_of

    root = model.network.module  # type: ignore[attr-defined]
    before = {name: root.get_submodule(name) for name in chosen}
    try:
        for name, (layer, scheme) in chosen.items():
            layout = scheme.layout(layer.rows, layer.columns)
            weight = before[name].weight.detach().float().cpu()
            tensors = scheme.pack(weight, layout, seen.get(name))
            root.set_submodule(name, linear_of(layout, tensors, before[name]).hold())
        yield
    finally:
        for name, module in before.items():
            root.set_submodule(name, module)
