"""Vector quantization of weights: k-means, and assignments calibrated by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_tools.nn.disk_tensors import DiskTensors
from dit_tools.nn.quantizers import adam, adam_step, output_error

CHUNK_VECTORS = 1 << 12
"""Vectors whose distances to all codewords are in memory at a time: 4 MB with 256 of them."""
SAMPLE = 1 << 16
"""Vectors that k-means looks at; a larger layer is sampled evenly (four times as many lessen the
error by a hundredth)."""


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
    return codebook, nearest(vectors, codebook)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The nearest codeword of each vector (n,), counted as ``closest`` does."""
    found = torch.empty(len(vectors), dtype=_counting(codebook))
    for start in range(0, len(vectors), CHUNK_VECTORS):
        some = vectors[start : start + CHUNK_VECTORS]
        found[start : start + len(some)] = closest(some, codebook, 1)[0][:, 0]
    return found


def closest(vectors: Tensor, codebook: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` nearest codewords of each vector (n, count), and their squared distances.

    Codewords are counted in the smallest type that holds them, int16 or int32.
    """
    codes, distances = [], []
    norms = codebook.square().sum(1)
    kind = _counting(codebook)
    for part in vectors.split(CHUNK_VECTORS):
        found = torch.addmm(norms, part, codebook.T, alpha=-2)
        if count == 1:
            least, places = found.min(1, keepdim=True)  # much faster than topk
        else:
            least, places = found.topk(count, dim=1, largest=False)
        codes.append(places.to(kind))
        distances.append((least + part.square().sum(1, keepdim=True)).clamp_min(0))
    return torch.cat(codes), torch.cat(distances)


def _counting(codebook: Tensor) -> torch.dtype:
    return torch.int16 if len(codebook) <= 1 << 15 else torch.int32


def calibrate_codebook(
    weight: Tensor, codebook: Tensor, moments: Tensor, candidates: int, iterations: int
) -> tuple[Tensor, Tensor]:
    """Codebook and codes of a weight (rows, columns) that lessen the error of the layer's output.

    Every vector is a mixture of its nearest codewords with ratios r = softmax(logits). Trained by
    Adam: the output's error as a share of that of k-means, plus the mean of 1 - |2 r - 1|, whose
    weight rises from 0 to 1. Then the largest ratio decides, and codewords alone are trained on for
    half as long. Returned is the best of all this and k-means. Rows are worked on some at a time;
    what is trained of the others, several times the weight, lies in a temporary file.
    """
    with DiskTensors() as shelf:
        task = _Task(weight, codebook, moments, shelf)
        base = task.begin(candidates)
        if base <= 0:
            return codebook, task.codes
        book = codebook.clone()
        move_book = adam(book, 0.01 * float(codebook.std()))
        for i in range(iterations):
            move_book(task.step(book, i, iterations))
        task.decide()
    move_book = adam(book, 0.01 * float(codebook.std()))
    for _ in range(iterations // 2):
        move_book(task.slopes(book))
    final = book.half().float()
    if task.error(final) < base:
        return final, task.codes
    return codebook, nearest(weight.reshape(-1, codebook.shape[1]), codebook)


class _Task:
    """A weight and what ``calibrate_codebook`` trains of it. ``codes`` (vectors,): the choices so far."""

    def __init__(self, weight: Tensor, codebook: Tensor, moments: Tensor, shelf: DiskTensors):
        self.weight, self.codebook, self.moments, self.shelf = weight, codebook, moments, shelf
        self.length = codebook.shape[1]
        self.parts = _parts(weight, self.length)
        self.base = self.scale = 0.0

    def begin(self, candidates: int) -> float:
        """Put candidates and logits on the shelf; the error of the nearest codewords."""
        codes, total = [], 0.0
        for key, (rows, _) in enumerate(self.parts):
            some = self.weight[rows].reshape(-1, self.length)
            near, distances = closest(some, self.codebook, candidates)
            codes.append(near[:, 0].clone())
            total += float(distances.sum(dtype=torch.float64))
            still = torch.zeros_like(distances)
            self.shelf.put(key, [near, distances, still, still])
        self.codes = torch.cat(codes)
        self.scale = -len(self.codes) * candidates / max(total, 1e-30)
        self.base = self.error(self.codebook)
        return self.base

    def step(self, book: Tensor, i: int, iterations: int) -> Tensor:
        """Move the ratios of all vectors; the gradient of the codebook."""
        slopes = torch.zeros_like(book)
        for key, (rows, _) in enumerate(self.parts):
            near, logits, first, second = self.shelf.take(key)
            if i == 0:
                logits *= self.scale
            places = near.int()
            ratios = logits.softmax(1)
            chosen = book[places]  # (n, candidates, length)
            mixed = (ratios[..., None] * chosen).sum(1).reshape(self.weight[rows].shape)
            slope = self._slope(rows, mixed)
            toward = (slope[:, None] * chosen).sum(-1)
            count = len(self.codes) * near.shape[1]
            toward -= 2 * i / iterations / count * (2 * ratios - 1).sign()
            shares = (ratios[..., None] * slope[:, None]).reshape(-1, self.length)
            slopes.index_add_(0, places.reshape(-1), shares)
            toward -= (ratios * toward).sum(1, keepdim=True)
            adam_step(logits, ratios * toward, first, second, i + 1, 0.05)
            self.shelf.put(key, [near, logits, first, second])
        return slopes

    def decide(self) -> None:
        """Choose the codeword with the largest ratio for every vector."""
        for key, (_, vectors) in enumerate(self.parts):
            near, logits, *_ = self.shelf.take(key)
            self.codes[vectors] = near.gather(1, logits.argmax(1, keepdim=True))[:, 0]

    def slopes(self, book: Tensor) -> Tensor:
        """The gradient of the codebook for the codes as they are."""
        slopes = torch.zeros_like(book)
        for rows, vectors in self.parts:
            slope = self._slope(rows, self._made(book, rows, vectors))
            slopes.index_add_(0, self.codes[vectors].int(), slope)
        return slopes

    def error(self, book: Tensor) -> float:
        """The error of the layer's output with the codes as they are."""
        return sum(
            output_error(self.weight[rows], self._made(book, rows, vectors), self.moments)
            for rows, vectors in self.parts
        )

    def _made(self, book: Tensor, rows: slice, vectors: slice) -> Tensor:
        return book[self.codes[vectors].int()].reshape(self.weight[rows].shape)

    def _slope(self, rows: slice, made: Tensor) -> Tensor:
        """The gradient, vector by vector, of the error as a share of the first one: 2 D H."""
        slope = ((made - self.weight[rows]) @ self.moments).mul_(2 / self.base)
        return slope.reshape(-1, self.length)


ROWS = 1 << 16
"""Weights that are worked on at a time: a step makes some ten copies of them."""
Parts = list[tuple[slice, slice]]


def _parts(weight: Tensor, length: int) -> Parts:
    """Slices of a weight's rows, and of the vectors that make them up."""
    count, columns = weight.shape
    step, each = max(ROWS // columns, 1), columns // length
    starts = [(start, min(start + step, count)) for start in range(0, count, step)]
    return [(slice(a, b), slice(a * each, b * each)) for a, b in starts]
