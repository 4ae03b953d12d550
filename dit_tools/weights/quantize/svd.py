"""Four bits beside a low-rank branch in half precision that takes up the outliers."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.nn.layouts import Layout
from dit_tools.weights.quantize._base import Array, Scheme, Seen, group_of


@method(
    paper="arXiv:2411.05007", year=2024,
    title="SVDQuant: Absorbing Outliers by Low-Rank Components for 4-Bit Diffusion Models",
    authors="Li, Lin, Zhang, Cai, Li, Guo, Xie, Meng, Zhu, Han",
)  # fmt: skip
class Svd(Scheme):
    """Integers for what a truncated singular value decomposition leaves of the weight.

    W = up down + R; R is rounded to the nearest, and up and down are fitted again to what rounding
    left, ``rounds`` times; the best is kept. Activations stay in full precision, and channels are
    not smoothed beforehand, unlike in the paper.
    """

    rank: int = param(32, "of the branch; small layers take a quarter of their side", ge=1, le=512)
    bits: int = param(4, "bits per weight of the rest", ge=2, le=8)
    group: int = param(64, "weights that share a scale; 0 is a row", ge=0, le=4096)
    rounds: int = param(4, "decompositions", ge=1, le=100)

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers with a scale per group, and the branch."""
        rank = max(min(self.rank, rows // 4, columns // 4), 1)
        group = group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, rank=rank)

    def pack(self, weight: Array, layout: Layout, seen: Seen | None) -> dict[str, Array]:
        """Branch and rest in turn."""
        import torch

        from dit_tools.nn.rounding import finished, nearest, scales, value

        best, least = {}, float("inf")
        rest = torch.zeros_like(weight)
        for _ in range(self.rounds):
            u, s, v = torch.linalg.svd(weight - rest, full_matrices=False)
            root = s[: layout.rank].sqrt()
            up = (u[:, : layout.rank] * root).half()
            down = (v[: layout.rank] * root[:, None]).half()
            lacking = weight - up.float() @ down.float()
            found = scales(lacking, layout)
            codes = nearest(lacking, found, layout)
            rest = value(codes, found, layout)
            error = float((lacking - rest).square().sum())
            if error < least:
                least, best = error, {**finished(codes, found, layout), "up": up, "down": down}
        return best
