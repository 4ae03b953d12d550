"""Array-agnostic helpers: the few functions that numpy and torch spell differently.

Operators, ``reshape``, ``mean`` over everything and indexing are the same in both, and used as is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Array = Any
"""A numpy array or a torch tensor."""


PRECISIONS = ("float32", "float64")
"""What ``to_precision`` takes."""


def is_torch(x: Array) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    return type(x).__module__.partition(".")[0] == "torch"


def namespace(x: Array) -> Any:
    """The module whose functions apply to ``x``: torch or numpy."""
    if is_torch(x):
        import torch

        return torch
    import numpy

    return numpy


def concat(parts: Sequence[Array], axis: int = 0) -> Array:
    """Join arrays along an axis."""
    xp = namespace(parts[0])
    return xp.cat(list(parts), axis) if xp.__name__ == "torch" else xp.concatenate(parts, axis)


def split(x: Array, count: int) -> list[Array]:
    """``count`` equal parts along the first axis."""
    size = x.shape[0] // count
    return [x[i * size : (i + 1) * size] for i in range(count)]


def sample_sum(x: Array) -> Array:
    """Sum over all axes but the first, which is kept with trailing ones, so that it broadcasts."""
    axes = tuple(range(1, x.ndim))
    if is_torch(x):
        return x.sum(dim=axes, keepdim=True)
    return x.sum(axis=axes, keepdims=True)


def sample_std(x: Array) -> Array:
    """Standard deviation (unbiased, as torch's default) over all axes but the first."""
    count = 1
    for size in x.shape[1:]:
        count *= size
    centred = x - sample_sum(x) / count
    return (sample_sum(centred * centred) / max(count - 1, 1)) ** 0.5


def all_finite(x: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(namespace(x).isfinite(x).all())


def to_numpy(x: Array) -> Array:
    """``x`` as a numpy array on the CPU."""
    return x.detach().float().cpu().numpy() if is_torch(x) else x


def at_least_float32(x: Array) -> Array:
    """The same numbers in float32, where they have fewer bits."""
    if x.dtype.itemsize >= 4:
        return x
    return x.float() if is_torch(x) else x.astype("float32")


def convert_like(values: Any, reference: Array) -> Array:
    """A numpy array moved to the kind, device and dtype of ``reference``."""
    if is_torch(reference):
        import torch

        return torch.as_tensor(values).to(reference.device, reference.dtype)
    return values.astype(reference.dtype)


def to_precision(x: Array, precision: str) -> Array:
    """``x`` in ``float32`` or ``float64``."""
    if is_torch(x):
        import torch

        return x.to(getattr(torch, precision))
    return x.astype(precision)


def to_numpy_same_dtype(x: Array) -> Array:
    """A numpy array of the same precision, on the CPU."""
    return x.detach().cpu().numpy() if is_torch(x) else x
