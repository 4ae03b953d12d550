"""Standing in for the softmax product inside a network's self-attention, in one place for all.

``products`` takes over torch's product; here it is told where the image's tokens are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.hooks import around_forward
from dit_tools.nn.products import Products

ATTENTIONS = {
    "BasicTransformerBlock": ("attn1",),
    "JointTransformerBlock": ("attn", "attn2"),  # SD 3.5: attn2 is over the image alone
    "FluxTransformerBlock": ("attn",),
    "FluxSingleTransformerBlock": ("attn",),
    "QwenImageTransformerBlock": ("attn",),
    "Lumina2TransformerBlock": ("attn",),
    "ZImageTransformerBlock": ("attention",),
}
"""Block class -> attribute names of its softmax attention over image tokens; Sana has none."""
LAST = ("FluxTransformerBlock", "FluxSingleTransformerBlock", "QwenImageTransformerBlock")
"""Blocks whose attention has the image's tokens last, behind the text's; others have them first,
but for Lumina2, where they follow each picture's own text and padding comes last."""


@dataclass(frozen=True)
class Product:
    """One call: queries, keys, values (B, heads, S, d); where the image's tokens are.

    ``mask``: keys that count, (B, 1, 1, S), or None for all. ``start``: the first image token of
    every row, (B,), or one for all. ``scale``: what ``q k`` is multiplied by. ``plain(q, k, v,
    mask)`` is the network's own product.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    start: int | Tensor
    scale: float
    plain: Callable[..., Tensor]

    def attend(self) -> Tensor:
        """What the network itself computes, (B, heads, S, d)."""
        return self.plain(self.q, self.k, self.v, self.mask)


Replace = Callable[[int, Product], Tensor]
"""``replace(site, product) -> (B, heads, S, d)``; sites count all attention modules in order."""


def sites(blocks: Sequence[Any], option: str) -> list[tuple[nn.Module, str]]:
    """The attention modules of blocks in order, with their block's class.

    Raises UnsupportedError where there are no blocks or their attention is not softmax attention.
    """
    found = []
    for block in blocks:
        kind = type(block.module).__name__
        if kind not in ATTENTIONS:
            raise UnsupportedError(f"{option}: the attention of {kind} is not softmax attention", "leave it out")
        modules = (getattr(block.module, name, None) for name in ATTENTIONS[kind])
        found += [(module, kind) for module in modules if module is not None]
    if not found:
        raise UnsupportedError(f"{option}: this network offers no blocks", "use --backend torch")
    return found


@contextmanager
def attending(
    blocks: Sequence[Any], tokens: Callable[[], int], replace: Replace, option: str, name: str
) -> Iterator[None]:
    """Inside the context ``replace`` makes the softmax product of every self-attention.

    ``tokens()``: how many image tokens the current call has. ``option`` is for messages, ``name``
    for the hooks. Raises UnsupportedError as ``sites`` does, and where an attention module does not
    call torch's product.
    """
    found = sites(blocks, option)

    def around(site: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        start = _placed(found[site][1], tokens)

        def take(*asked: Any, **named: Any) -> Tensor:
            return replace(site, _product(start, *asked, **named))

        with Products(take) as mode:
            output = compute()
        if not mode.seen:
            kind = type(found[site][0]).__name__
            message = f"{option}: {kind} does not call torch's attention"
            raise UnsupportedError(message, "use diffusers' native attention backend")
        return output

    with around_forward([module for module, _ in found], around, name):
        yield


def _placed(kind: str, tokens: Callable[[], int]) -> Callable[[Tensor, Tensor | None], Any]:
    """From queries and mask of a block's class to the first image token."""

    def start(q: Tensor, mask: Tensor | None) -> int | Tensor:
        length, count = q.shape[2], tokens()
        if kind in LAST:
            return length - count
        if kind != "Lumina2TransformerBlock":
            return 0
        if mask is None:  # equal texts: no padding behind
            return length - count
        return mask.reshape(mask.shape[0], -1).sum(1) - count

    return start


def _product(
    start: Callable[[Tensor, Tensor | None], Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    **rest: Any,
) -> Product:
    def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, **rest)

    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if attn_mask is not None and (attn_mask.dtype != torch.bool or attn_mask.shape[-2] != 1):
        raise UnsupportedError("this network masks pairs of tokens", "leave it out")
    return Product(query, key, value, attn_mask, start(query, attn_mask), factor, plain)


def apart(x: Tensor, start: int | Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, heads, S, d) as those of the image (B, heads, count, d) and the rest in order."""
    if isinstance(start, int):
        image = x[:, :, start : start + count]
        return image, torch.cat([x[:, :, :start], x[:, :, start + count :]], 2)
    order = _order(start, count, x.shape[2])[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    moved = x.gather(2, order)
    return moved[:, :, :count], moved[:, :, count:]


def together(image: Tensor, rest: Tensor, start: int | Tensor) -> Tensor:
    """The inverse of ``apart``."""
    count = image.shape[2]
    if isinstance(start, int):
        return torch.cat([rest[:, :, :start], image, rest[:, :, start:]], 2)
    joined = torch.cat([image, rest], 2)
    back = _order(start, count, joined.shape[2]).argsort(1)
    return joined.gather(2, back[:, None, :, None].expand(-1, joined.shape[1], -1, joined.shape[3]))


def _order(start: Tensor, count: int, length: int) -> Tensor:
    """Positions (B, S) with the image's first: ``count`` from ``start`` on, then all others."""
    places = torch.arange(length, device=start.device).expand(start.shape[0], -1)
    image = (places >= start[:, None]) & (places < start[:, None] + count)
    return (~image).to(torch.uint8).argsort(dim=1, stable=True)
