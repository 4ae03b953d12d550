"""Window attention with a new shift at every call (the attention half of HiDiffusion)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.sparse_attention import Attention


@method(
    paper="arXiv:2311.17528",
    year=2023,
    title="HiDiffusion: Unlocking Higher-Resolution Creativity and Efficiency in Pretrained Diffusion Models",
    authors="Zhang, Chen, Zhao, et al.",
    needs={"blocks"},
    identity={"windows": 1},
)
class Msw(Attention):
    """Attention within windows of the image, rolled by a random shift at every call.

    MSW-MSA of HiDiffusion: windows of ``ceil(H / 2) x ceil(W / 2)`` tokens, rolled
    around the borders by 0, 1, 2 or 3 quarters of a window, the same for both axes. In the chosen
    blocks a pair of image tokens costs a fourth. Differs from the paper, which is about U-Nets and
    takes their blocks of the highest resolution: a transformer has one resolution, so the first and
    last blocks are taken and those in the middle see everything; text tokens see and are seen by
    all. Where a side is odd, windows overlap by a row instead of resizing features. It makes large
    images faster; that objects repeat beyond the trained size is for ``--highres`` to cure.

    The gain grows with the number of tokens: at the 16 of emoji there is none.
    """

    windows: int = param(2, "windows along a side; 1 = exact", ge=1)
    share: float = param(0.67, "share of blocks that have windows, first and last", ge=0, le=1)
    shift: bool = param(True, "roll by a random part of a window at every call")

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when the blocks have no softmax attention."""
        outer = round(self.share * len(blocks) / 2)
        chosen = [*blocks[:outer], *blocks[max(len(blocks) - outer, outer) :]]
        if self.windows == 1 or self.share == 0:
            return nullcontext()
        from dit_tools.nn.window_attention import use_windows

        return use_windows(chosen or blocks[:1], run, self.windows, self._roll, self._option)

    @property
    def remembers(self) -> bool:
        """Shifts are drawn by the number of the call."""
        return self.shift

    @property
    def _option(self) -> str:
        return f"--attention {self.info.name}"

    def _roll(self, call: int, site: int) -> int:
        """Quarters of a window to roll by; one draw per call and attention module."""
        return random.Random(call * 7919 + site).randrange(4) if self.shift else 0
