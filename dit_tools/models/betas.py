"""The table ``alphas_cumprod`` of a discrete diffusion, from a diffusers scheduler config.

Rounded to single precision where diffusers rounds, so that solvers agree to the last digits.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.errors import ModelError


def cumprods(config: Mapping[str, Any]) -> tuple[float, ...]:
    """``prod(1 - beta)`` for every training step. Raises ModelError for an unknown schedule."""
    betas: Sequence[float] = array("f", _betas(config))
    if config.get("rescale_betas_zero_snr"):
        betas = array("f", _zero_terminal(betas))
    table: list[float] = []
    product = 1.0
    for alpha in array("f", (1.0 - beta for beta in betas)):
        product *= alpha
        table.append(product)
    if config.get("rescale_betas_zero_snr") and "DDIM" not in str(config.get("_class_name")):
        table[-1] = 2.0**-24  # so that the first noise level is not infinite
    return tuple(array("f", table))


def _betas(config: Mapping[str, Any]) -> list[float]:
    trained = config.get("trained_betas")
    if trained is not None:
        return [float(beta) for beta in trained]
    count = int(config.get("num_train_timesteps", 1000))
    low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    schedule = config.get("beta_schedule", "linear")
    line = [i / max(count - 1, 1) for i in range(count)]
    if schedule == "linear":
        return [low + (high - low) * u for u in line]
    if schedule == "scaled_linear":
        return [(low**0.5 + (high**0.5 - low**0.5) * u) ** 2 for u in line]
    if schedule == "squaredcos_cap_v2":
        return [_cosine_beta(i, count) for i in range(count)]
    raise ModelError(
        f"unknown beta_schedule {schedule!r} in the scheduler's config",
        "use linear, scaled_linear or squaredcos_cap_v2",
    )


def _cosine_beta(i: int, count: int) -> float:
    """Nichol and Dhariwal 2021 (arXiv:2102.09672), Eq. 17."""

    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return min(1 - bar((i + 1) / count) / bar(i / count), 0.999)


def _zero_terminal(betas: Sequence[float]) -> list[float]:
    """Betas whose last cumulative product is 0 (Lin et al. 2023, arXiv:2305.08891, Alg. 1)."""
    roots: list[float] = []
    product = 1.0
    for beta in betas:
        product *= 1.0 - beta
        roots.append(math.sqrt(product))
    first, last = roots[0], roots[-1]
    bars = [((root - last) * first / (first - last)) ** 2 for root in roots]
    return [1.0 - bar / before for before, bar in zip([1.0, *bars], bars, strict=False)]
