"""Attention maps out of a running transformer, and how far they are from a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional


@contextmanager
def kept_logits(attention: Any) -> Iterator[Callable[[], torch.Tensor]]:
    """Gives a function for the logits (B, heads, N, N), float32, of the last forward pass.

    Queries and keys are kept, not the maps: the pass itself stays on the fused attention.
    """
    store: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: store.__setitem__(name, output)

    def logits() -> torch.Tensor:
        made = []
        for name, norm in (("to_q", "norm_q"), ("to_k", "norm_k")):
            heads = store[name].unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            normalize = getattr(attention, norm, None)
            made.append((heads if normalize is None else normalize(heads)).float())
        query, key = made  # (B, heads, N, d)
        return query @ key.mT * query.shape[-1] ** -0.5

    handles = [getattr(attention, n).register_forward_hook(keep(n)) for n in ("to_q", "to_k")]
    try:
        yield logits
    finally:
        for handle in handles:
            handle.remove()


def divergence(wanted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of student maps from teacher maps, a scalar >= 0.

    The cross-entropy without the teacher's own entropy, which has no gradient. Heads are matched
    one to one, as many as both have: ``wanted`` (B, h, N, N) sums to 1 along its last dimension.
    """
    heads = min(wanted.shape[1], logits.shape[1])
    own = functional.log_softmax(logits[:, :heads], -1)
    target = wanted[:, :heads].float()
    return (target * (target.clamp(min=1e-12).log() - own)).sum(-1).mean()


def similarity(features: torch.Tensor) -> torch.Tensor:
    """Maps (B, 1, N, N) of features (B, N, D) that attend to their like."""
    given = features.float()
    return (given @ given.mT * given.shape[-1] ** -0.5).softmax(-1)[:, None]


def pooled(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """Maps (B, h, T, T) over T = side^2 tokens as maps over grid^2 tokens, rows summing to 1."""
    side = round(maps.shape[-1] ** 0.5)
    batch = maps.shape[:2]
    keys = functional.adaptive_avg_pool2d(maps.reshape(-1, side * side, side, side), grid)
    queries = keys.flatten(2).mT.reshape(-1, grid * grid, side, side)
    made = functional.adaptive_avg_pool2d(queries, grid).flatten(2).mT
    return functional.normalize(made, p=1, dim=-1).reshape(*batch, grid * grid, grid * grid)


def gradient_cosine(a: torch.Tensor, b: torch.Tensor, parameters: Iterable[torch.nn.Parameter]) -> float:
    """Cosine of the gradients of two losses with respect to the parameters that both reach."""
    leaves = [p for p in parameters if p.requires_grad]
    first, second = (torch.autograd.grad(x, leaves, retain_graph=True, allow_unused=True) for x in (a, b))
    both = [(x, y) for x, y in zip(first, second, strict=True) if x is not None and y is not None]
    dot, one, two = (sum(float((p[i].float() * p[j].float()).sum()) for p in both) for i, j in ((0, 1), (0, 0), (1, 1)))
    return dot / max((one * two) ** 0.5, 1e-30)
