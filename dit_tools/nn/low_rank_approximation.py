"""The best low-rank approximation of a matrix that is given some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EXACT = 1 << 20
"""Numbers of a matrix up to which it is decomposed outright."""
MORE, ROUNDS = 16, 6
"""Directions that are followed next to the wanted ones, and how often they are refined."""


def low_rank_branch(
    rows: Callable[[slice], Tensor], pieces: Sequence[slice], rank: int, before: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``up`` (n, rank) and ``down`` (rank, columns), float16, whose product is nearest to a matrix.

    ``rows(piece)`` gives rows of it (float32). A large matrix is decomposed by subspace iteration
    (Halko, Martinsson, Tropp 2011, Alg. 4.4) from the row space of ``before``, an earlier ``down``
    of a similar matrix; then no copy of it is made. The singular values are shared out evenly.
    """
    first = rows(pieces[0])
    count, columns = max(piece.stop for piece in pieces), first.shape[1]
    if count * columns <= EXACT:
        u, s, v = torch.linalg.svd(torch.cat([rows(piece) for piece in pieces]), full_matrices=False)
    else:
        u, s, v = _iterated(rows, pieces, columns, rank, before)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).half(), (v[:rank] * root[:, None]).half()


def _iterated(
    rows: Callable[[slice], Tensor], pieces: Sequence[slice], columns: int, rank: int, before: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values of the largest ``rank`` or more."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(columns, min(rank + MORE, columns), generator=generator)
    if before is not None:
        basis[:, : len(before)] = before.float().T * columns**0.5 / before.float().norm()
    basis = torch.linalg.qr(basis)[0]  # (columns, k)
    for _ in range(ROUNDS):
        turned = torch.zeros_like(basis)
        for piece in pieces:
            some = rows(piece)
            turned.addmm_(some.T, some @ basis)
        basis = torch.linalg.qr(turned)[0]
    images = torch.cat([rows(piece) @ basis for piece in pieces])  # (n, k)
    u, s, turn = torch.linalg.svd(images, full_matrices=False)
    return u, s, turn @ basis.T
