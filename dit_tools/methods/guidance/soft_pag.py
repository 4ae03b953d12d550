"""Soft perturbed-attention guidance: away from what the network says with its attention blurred."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide


@method(
    paper="arXiv:2506.10978",
    year=2025,
    title="Fine-Grained Perturbation Guidance via Attention Head Selection",
    authors="Ahn, Kang, Lee, et al.",
    needs={"blocks"},
    identity={"scale": 1.0, "weight": 0.0},
)
class SoftPag(Guidance):
    """``cfg + weight (cond - perturbed)``: attention drawn to identity in heads.

    One more network call a step, with the attention maps of the chosen blocks or heads drawn
    towards the identity; share 1 is perturbed-attention guidance (PAG). Computed on head outputs,
    ``(1 - share) A V + share V``, so that fused attention stays in use. In joint blocks only the
    image stream is perturbed; Flux's single blocks, whose attention has no projection of its own,
    are left alone, and single-stream networks (Lumina2, Z-Image) are perturbed in all tokens. Not
    worth it on emoji: the image-text model's cosine falls, and heads that ``dit calibrate --heads`` found are
    no better than random ones (benchmarks/methods.py and heads.py).
    """

    scale: float = param(4.0, "classifier-free guidance; 1 = none", ge=0)
    weight: float = param(1.0, "how far away from the perturbed prediction; 0 = off", ge=0)
    share: float = param(0.5, "share of the identity in the attention maps", ge=0, le=1)
    depth: tuple[float, float] = param((0.25, 0.75), "blocks by depth, 0 first, 1 last", ge=0, le=1)
    heads: str = param("all", "all, or BLOCK.HEAD+BLOCK.HEAD..., in place of depth")

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when there is no classifier-free guidance."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide without state. Raises UsageError for heads that cannot be read."""
        heads_of(self.heads)
        branch = Branch("perturbed", "cond", self._perturb)

        def guide(x, t):
            asked = [*self.branches, *([branch] if self.weight else [])]
            found = yield tuple(asked)
            made = dict(zip((b.name for b in asked), found, strict=True))
            cond = made["cond"]
            guided = cond.raw
            if "uncond" in made:
                guided = made["uncond"].raw + self.scale * (cond.raw - made["uncond"].raw)
            if "perturbed" in made:
                guided = guided + self.weight * (cond.raw - made["perturbed"].raw)
            return cond.with_raw(guided)

        return guide

    def _perturb(self, blocks: Sequence[Any]) -> AbstractContextManager[None]:
        from dit_tools.nn.attention_perturbation import softened

        chosen = heads_of(self.heads)
        if chosen is None:
            last = max(len(blocks) - 1, 1)
            low, high = self.depth
            inside = [i for i in range(len(blocks)) if low <= i / last <= high]
            chosen = dict.fromkeys(inside)
        return softened(blocks, chosen, self.share)


def heads_of(text: str) -> dict[int, list[int] | None] | None:
    """Block -> heads from ``3.1+3.4+5.0``; None for ``all``. Raises UsageError."""
    if text == "all":
        return None
    found: dict[int, list[int] | None] = {}
    for part in text.split("+"):
        block, dot, head = part.strip().partition(".")
        if not (dot and block.isdecimal() and head.isdecimal()):
            raise UsageError(f"--guidance soft-pag: heads={text!r} is not valid", "give all, or 3.1+3.4+5.0")
        listed = found.setdefault(int(block), [])
        if listed is not None:
            listed.append(int(head))
    return found
