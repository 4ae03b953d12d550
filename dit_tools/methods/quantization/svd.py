"""Four bits next to a low-rank branch in half precision that takes up the outliers."""

from __future__ import annotations

from dataclasses import replace

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Rows, Scheme, group_of, row_blocks
from dit_tools.nn.packed_layout import Layout


@method(
    paper="arXiv:2411.05007",
    year=2024,
    title="SVDQuant: Absorbing Outliers by Low-Rank Components for 4-Bit Diffusion Models",
    authors="Li, Lin, Zhang, Cai, Li, Guo, Xie, Meng, Zhu, Han",
)
class Svd(Scheme):
    """Integers for what a truncated singular value decomposition leaves of the weight.

    W = up down + R; R is rounded to the nearest, and up and down are fitted again to what rounding
    left, ``rounds`` times; the best is kept, and its scales are searched for. Activations stay in
    full precision, and channels are not smoothed beforehand, unlike in the paper. The branch costs
    16 rank (1/rows + 1/columns) bits a weight: small layers are better off with more bits.
    """

    rank: int = param(32, "rank of the low-rank branch; small layers use a quarter of their side", ge=1, le=512)
    bits: int = param(4, "bits per weight of the rest", ge=2, le=8)
    group: int = param(64, "weights that share a scale; 0 is a row", ge=0, le=4096)
    rounds: int = param(4, "number of alternating decompositions", ge=1, le=100)

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers with a scale per group, and the branch."""
        rank = max(min(self.rank, rows // 4, columns // 4), 1)
        group = group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, rank=rank)

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Branch and rest in turn; of a large layer only some rows are worked on at a time."""
        import torch

        from dit_tools.nn.low_rank_approximation import low_rank_branch
        from dit_tools.nn.packed import dequantize

        best: dict[str, Array] = {}
        least = float("inf")
        codes: dict[str, Array] = {}

        def rest(rows: slice) -> Array:
            """What the codes of the last round leave of some rows of the weight."""
            if not codes:
                return weight[rows]
            some = {key: tensor[rows] for key, tensor in codes.items()}
            shape = replace(layout, rows=len(weight[rows]), rank=0)
            return weight[rows] - dequantize(some, shape, torch.float32)

        down = None
        for _ in range(self.rounds):
            up, down = low_rank_branch(rest, list(row_blocks(layout)), layout.rank, down)
            codes = {}  # the branch has read them: two rounds' are never held at a time
            codes, error = _quantized(weight, up, down, layout, 0)
            if error < least:
                least, best = error, {"up": up, "down": down}
        codes = {}
        made, _ = _quantized(weight, best["up"], best["down"], layout, 80)
        return {**made, **best}


def _quantized(
    weight: Array, up: Array, down: Array, layout: Layout, candidates: int
) -> tuple[dict[str, Array], float]:
    """Packed codes and scales of what a branch leaves; and their squared error."""
    from dit_tools.nn.quantizers import finish_rounding, nearest, scales, value

    error, found = 0.0, Rows(layout.rows)
    for rows in row_blocks(layout):
        lacking = weight[rows] - up[rows].float() @ down.float()
        shape = replace(layout, rows=len(lacking), rank=0)  # maybe fewer rows than ranks
        scale = scales(lacking, shape, candidates)
        near = nearest(lacking, scale, shape)
        error += float((lacking - value(near, scale, shape)).square().sum())
        found.put(rows, finish_rounding(near, scale, shape))
    return found.tensors, error
