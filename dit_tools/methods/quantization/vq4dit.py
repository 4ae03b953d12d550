"""VQ4DiT: short vectors of weights from a codebook, with calibrated assignments."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, row_blocks
from dit_tools.nn.packed_layout import Layout

SHAPES = {"2": (4, 8), "3": (2, 6)}
"""Bits per weight -> (weights per code, bits per code)."""


@method(
    paper="arXiv:2408.17131",
    year=2024,
    title="VQ4DiT: Efficient Post-Training Vector Quantization for Diffusion Transformers",
    authors="Deng, Li, Wang, Chen, Xu, Liu",
)
class Vq4dit(Scheme):
    """Vector quantization at 2 or 3 bits: a codebook per layer, codewords and choices calibrated.

    k-means gives the codebook. Each vector then chooses among its ``candidates`` nearest codewords
    by a softmax that is trained together with the codebook so that the layer's output suffers
    least, and that a penalty makes one-sided. No data is needed: the model samples from noise.
    Unlike in the paper layers are calibrated one by one, not in blocks.
    """

    bits: str = param("2", "bits per weight", choices=("2", "3"))
    candidates: int = param(2, "number of candidate codewords per vector", ge=1, le=16)
    iterations: int = param(200, "steps of calibration; 0 is k-means alone", ge=0, le=100000)

    moments = True

    @property
    def calibration(self) -> str:
        """What the model is fed when it is used, from noise."""
        return "trajectory" if self.iterations else ""

    def layout(self, rows: int, columns: int) -> Layout:
        """Raises ValueError for rows that vectors do not fill."""
        length, bits = SHAPES[self.bits]
        return Layout(rows, columns, "vq", bits, length=length)

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """k-means, then calibration where something was seen."""
        import torch

        from dit_tools.nn.packed import pack
        from dit_tools.nn.vector_quantization import calibrate_codebook, kmeans

        vectors = weight.reshape(-1, layout.length)
        codebook, codes = kmeans(vectors, 1 << layout.bits)
        if seen is not None:
            codebook, codes = calibrate_codebook(weight, codebook, seen.moments, self.candidates, self.iterations)
        table = codes.reshape(layout.rows, layout.codes)
        packed = torch.cat([pack(table[rows], layout.bits) for rows in row_blocks(layout)])
        return {"packed": packed, "codebook": codebook.half()}
