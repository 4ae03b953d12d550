"""Vector quantization of weights: k-means, and assignments calibrated by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_tools.nn.rounding import adam, output_error

PIECE = 1 << 12
"""Vectors whose distances to all codewords are in memory at a time: 4 MB with 256 of them."""
SAMPLE = 1 << 18
"""Vectors that k-means looks at; a larger layer is sampled evenly."""


def kmeans(vectors: Tensor, size: int, rounds: int = 15) -> tuple[Tensor, Tensor]:
    """A codebook (size, d) of vectors (n, d) and the nearest codeword of each (n,).

    Lloyd's algorithm from evenly spread vectors; a codeword that none is nearest to moves to the
    vector that is farthest from its own. Values are those that float16 can hold.
    """
    some = vectors[:: max(len(vectors) // SAMPLE, 1)]
    order = some.square().sum(1).argsort()
    start = order[torch.linspace(0, len(some) - 1, size).long()]
    codebook = some[start].clone()
    for _ in range(rounds):
        codes, distances = closest(some, codebook, 1)
        codes, distances = codes[:, 0].int(), distances[:, 0].clone()
        count = torch.bincount(codes, minlength=size)
        total = torch.zeros_like(codebook).index_add_(0, codes, some)
        codebook = total / count.clamp_min(1)[:, None]
        empty = (count == 0).nonzero()[:, 0][: len(some)]
        codebook[empty] = some[distances.topk(len(empty)).indices]
    codebook = codebook.half().float()
    return codebook, closest(vectors, codebook, 1)[0][:, 0]


def closest(vectors: Tensor, codebook: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` nearest codewords of each vector (n, count), and their squared distances.

    Codewords are counted in the smallest type that holds them, int16 or int32.
    """
    codes, distances = [], []
    norms = codebook.square().sum(1)
    kind = torch.int16 if len(codebook) <= 1 << 15 else torch.int32
    for part in vectors.split(PIECE):
        found = torch.addmm(norms, part, codebook.T, alpha=-2)
        if count == 1:
            least, places = found.min(1, keepdim=True)  # much faster than topk
        else:
            least, places = found.topk(count, dim=1, largest=False)
        codes.append(places.to(kind))
        distances.append((least + part.square().sum(1, keepdim=True)).clamp_min(0))
    return torch.cat(codes), torch.cat(distances)


def calibrated(
    weight: Tensor, codebook: Tensor, moments: Tensor, candidates: int, iterations: int
) -> tuple[Tensor, Tensor]:
    """Codebook and codes of a weight (rows, columns) that lessen the error of the layer's output.

    Every vector is a mixture of its nearest codewords with ratios r = softmax(logits). Trained by
    Adam: the output's error as a share of that of k-means, plus the mean of 1 - |2 r - 1|, whose
    weight rises from 0 to 1. Then the largest ratio decides, and codewords alone are trained on for
    half as long. Returned is the best of all this and k-means. Rows are worked on some at a time.
    """
    length = codebook.shape[1]
    near, distances = closest(weight.reshape(-1, length), codebook, candidates)
    parts = _parts(weight, length)
    base = _error(weight, codebook, near[:, 0], moments, parts)
    if base <= 0:
        return codebook, near[:, 0]
    book = codebook.clone()
    logits = distances.mul_(-1 / float(distances.mean().clamp_min(1e-30)))
    spread = float(codebook.std())
    move_book = adam(book, 0.01 * spread)
    moves = [adam(logits[vectors], 0.05) for _, vectors in parts]
    for i in range(iterations):
        slopes = torch.zeros_like(book)
        for (rows, vectors), move in zip(parts, moves, strict=True):
            places, some = near[vectors].int(), logits[vectors]
            ratios = some.softmax(1)
            chosen = book[places]  # (n, candidates, length)
            mixed = (ratios[..., None] * chosen).sum(1).reshape(weight[rows].shape)
            slope = _slope(weight[rows], mixed, moments, base).reshape(-1, length)
            toward = (slope[:, None] * chosen).sum(-1)
            toward -= 2 * i / iterations / logits.numel() * (2 * ratios - 1).sign()
            shares = (ratios[..., None] * slope[:, None]).reshape(-1, length)
            slopes.index_add_(0, places.reshape(-1), shares)
            move(ratios * (toward - (ratios * toward).sum(1, keepdim=True)))
        move_book(slopes)
    codes = near.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    move_book = adam(book, 0.01 * spread)
    for _ in range(iterations // 2):
        slopes = torch.zeros_like(book)
        for rows, vectors in parts:
            places = codes[vectors].int()
            made = book[places].reshape(weight[rows].shape)
            slope = _slope(weight[rows], made, moments, base)
            slopes.index_add_(0, places, slope.reshape(-1, length))
        move_book(slopes)
    final = book.half().float()
    if _error(weight, final, codes, moments, parts) < base:
        return final, codes
    return codebook, near[:, 0]


ROWS = 1 << 18
"""Weights that are worked on at a time: a step makes some ten copies of them."""
Parts = list[tuple[slice, slice]]


def _parts(weight: Tensor, length: int) -> Parts:
    """Slices of a weight's rows, and of the vectors that make them up."""
    count, columns = weight.shape
    step, each = max(ROWS // columns, 1), columns // length
    starts = [(start, min(start + step, count)) for start in range(0, count, step)]
    return [(slice(a, b), slice(a * each, b * each)) for a, b in starts]


def _error(weight: Tensor, book: Tensor, codes: Tensor, moments: Tensor, parts: Parts) -> float:
    return sum(
        output_error(weight[rows], book[codes[vectors].int()].reshape(weight[rows].shape), moments)
        for rows, vectors in parts
    )


def _slope(weight: Tensor, made: Tensor, moments: Tensor, base: float) -> Tensor:
    """The gradient by ``made`` of the output's error as a share of ``base``: 2 D H."""
    return ((made - weight) @ moments).mul_(2 / base)
