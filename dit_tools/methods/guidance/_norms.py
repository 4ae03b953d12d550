"""Helpers of guidance: rescaling a guided output back to the conditional's size."""

from __future__ import annotations

from dit_tools.core.arrays import Array, namespace, sample_std, sample_sum


def rescale_std(guided: Array, cond: Array, share: float) -> Array:
    """``share`` of the way to the conditional's standard deviation, per sample.

    Lin et al. 2023 (arXiv:2305.08891), Eq. 14-16.
    """
    fitted = guided * (sample_std(cond) / sample_std(guided))
    return share * fitted + (1 - share) * guided


def match_norm(guided: Array, cond: Array, norm: str) -> Array:
    """``guided`` with the conditional's Euclidean norm: per ``row``, ``patch`` or ``sample``.

    row: over the width (what Lumina2's pipeline does on its unpacked latents); patch: over the
    channels of each 2 x 2 patch (Qwen-Image, a token); sample: over everything, and only down
    (Z-Image with cfg_normalization).
    """
    if norm == "sample":
        ratio = (sample_sum(cond * cond) / sample_sum(guided * guided)) ** 0.5
        return guided * ratio.clip(None, 1.0)
    if norm == "patch":
        split = (*guided.shape[:-2], guided.shape[-2] // 2, 2, guided.shape[-1] // 2, 2)
        parts = guided.reshape(split)  # (B, C, [F,] H/2, 2, W/2, 2)
        ratio = _norm(cond.reshape(split), (1, -3, -1)) / _norm(parts, (1, -3, -1))
        return (parts * ratio).reshape(guided.shape)
    return guided * (_norm(cond, (-1,)) / _norm(guided, (-1,)))


def _norm(x: Array, axes: tuple[int, ...]) -> Array:
    squares = x * x
    if namespace(x).__name__ == "torch":
        return squares.sum(dim=axes, keepdim=True) ** 0.5
    return squares.sum(axis=axes, keepdims=True) ** 0.5
