"""Context manager that replaces the attention computation of a transformer's blocks.

Whatever an attention module does before and after (projections, norms, rotary positions, joining
text and image), it calls ``torch.nn.functional.scaled_dot_product_attention`` once. A torch function
mode sees that call and hands queries, keys and values (B, heads, S, d) to a control, together with
the knowledge of which tokens are the image's. Where they lie is said by the blocks' specs
(``core.blocks``). Linear attention (Sana's) has no such call and is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dit_tools.core.blocks import BEHIND, CROSS, JOINT, LAST, SELF, AttentionSpec, Block
from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.hooks import around_forward

ALL = (SELF, CROSS, JOINT)
OVER_IMAGE = (SELF, JOINT)
"""Kinds of attention whose queries and keys hold the image's tokens."""


@dataclass(frozen=True)
class AttentionCall:
    """One call of the softmax attention product.

    Attributes:
        site: counts the controlled attention modules in order.
        index: the block, one of ``count``.
        kind: self (image to image), cross (image to text) or joint (both to both).
        tokens: number of image tokens of this call.
        start: first image token of every row (B,), or one for all.
        q, k, v: (B, heads, S, d).
        mask: what the network gives as ``attn_mask``, or None.
        options: other arguments of the product.
    """

    site: int
    index: int
    count: int
    kind: str
    tokens: int
    start: int | Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    options: dict[str, Any]

    @property
    def scale(self) -> float:
        """What ``q k`` is multiplied by."""
        return self.options.get("scale") or 1 / math.sqrt(self.q.shape[-1])

    @property
    def image(self) -> slice:
        """The image's tokens among the keys; in a cross layer, among the queries."""
        if self.kind == SELF:
            return slice(0, self.k.shape[-2])
        if self.kind == CROSS:
            return slice(0, self.tokens)
        return slice(self._first(), self._first() + self.tokens)

    @property
    def text(self) -> slice:
        """The text's tokens among the keys; empty in a self-attention layer."""
        keys = self.k.shape[-2]
        if self.kind == SELF:
            return slice(0, 0)
        if self.kind == CROSS:
            return slice(0, keys)
        return slice(self.tokens, keys) if self._first() == 0 else slice(0, self._first())

    @property
    def key_mask(self) -> Tensor | None:
        """The mask as keys that count, (B, 1, 1, S). Raises UnsupportedError for one over pairs."""
        mask = self.mask
        if mask is not None and (mask.dtype != torch.bool or mask.shape[-2] != 1):
            raise UnsupportedError("this network masks pairs of tokens", "leave it out")
        return mask

    def run(self) -> Tensor:
        """What the network itself computes, (B, heads, S, d), by the fused kernel."""
        return self.product(self.q, self.k, self.v, self.mask)

    def product(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The network's own product of other queries, keys and values."""
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)

    def having(self, **changed: Any) -> AttentionCall:
        """The call with other queries, keys, values or mask."""
        return replace(self, **changed)

    def probabilities(self) -> Tensor:
        """Attention maps (B, heads, N, keys), in float32; rows sum to 1."""
        scores = self.q.float() @ self.k.float().transpose(-1, -2) * self.scale
        if self.mask is not None and self.mask.dtype == torch.bool:
            scores = scores.masked_fill(~self.mask, -torch.inf)
        elif self.mask is not None:
            scores = scores + self.mask.float()
        return scores.softmax(-1)

    def apply(self, probabilities: Tensor) -> Tensor:
        """The output of given maps."""
        return (probabilities @ self.v.float()).to(self.v.dtype)

    def _first(self) -> int:
        assert isinstance(self.start, int), "control_attention(same_places=True) refuses the others"
        return self.start


Control = Callable[[AttentionCall], Tensor]
"""What to give in place of the call's output; ``call.run()`` is the output itself."""


@contextmanager
def control_attention(
    blocks: Sequence[Block],
    tokens: Callable[[], int],
    control: Control,
    option: str,
    *,
    kinds: Sequence[str] = OVER_IMAGE,
    same_places: bool = False,
    name: str = "dit_attention",
) -> Iterator[None]:
    """Inside the context ``control`` gives the output of every softmax attention of the blocks.

    Args:
        blocks: ``network.blocks()``.
        tokens: gives the number of image tokens of the current call.
        control: gets an ``AttentionCall``.
        option: what the user asked for, for messages.
        kinds: which attention modules are controlled.
        same_places: whether all rows must have their image tokens at the same place.
        name: of the hooks; two contexts of one name cannot be nested.

    Raises UnsupportedError where there are no blocks, for blocks without such attention, and where
    an attention module does not call torch's product.
    """
    found = attention_sites(blocks, option, kinds, same_places)

    def around(site: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        block, spec, module = found[site]

        def take(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
            count = tokens()
            start = _start(spec, query, attn_mask, count)
            return control(
                AttentionCall(
                    site, block.index, len(blocks), spec.kind, count, start, query, key, value, attn_mask, options
                )
            )

        with _Products(take) as mode:
            output = compute()
        if not mode.seen:
            message = f"{option}: {type(module).__name__} does not call torch's attention"
            raise UnsupportedError(message, "use diffusers' native attention backend")
        return output

    with around_forward([module for _, _, module in found], around, name):
        yield


def attention_sites(
    blocks: Sequence[Block], option: str, kinds: Sequence[str] = OVER_IMAGE, same_places: bool = False
) -> list[tuple[Block, AttentionSpec, nn.Module]]:
    """The attention modules of ``kinds`` in order. Raises as ``control_attention`` does."""
    found = []
    for block in blocks:
        chosen = [a for a in block.spec.attention if a.softmax and a.kind in kinds]
        present = [(block, a, getattr(block.module, a.attribute, None)) for a in chosen]
        here = [(b, a, module) for b, a, module in present if module is not None]
        kind = type(block.module).__name__
        if not here:
            raise UnsupportedError(f"{option}: the attention of {kind} is not softmax attention", "leave it out")
        if same_places and any(a.image == BEHIND for _, a, _ in here):
            message = f"{option}: {kind} puts the image's tokens behind texts of different lengths"
            raise UnsupportedError(message, "use a method that does not look at attention, such as flowedit")
        found += here
    if not found:
        raise UnsupportedError(f"{option}: this network offers no blocks", "use --backend torch")
    return found


class _Products(TorchFunctionMode):
    """Inside the context ``take(query, key, value, ...)`` makes every attention product.

    Products that ``take`` asks for itself run as ever: a mode is off in its own function. ``seen``
    tells whether there was any.
    """

    def __init__(self, take: Callable[..., Tensor]):
        super().__init__()
        self._take, self.seen = take, False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Torch's hook: every torch function that is called inside the context."""
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.seen = True
        return self._take(*args, **kwargs)


def _start(spec: AttentionSpec, q: Tensor, mask: Tensor | None, count: int) -> int | Tensor:
    """The first image token of the rows of ``q``."""
    length = q.shape[2]
    if spec.kind != JOINT or spec.image not in (LAST, BEHIND):
        return 0
    if spec.image == LAST or mask is None:  # equal texts: no padding behind
        return length - count
    return mask.reshape(mask.shape[0], -1).sum(1) - count


def split_image(x: Tensor, start: int | Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, heads, S, d) as those of the image (B, heads, count, d) and the rest in order."""
    if isinstance(start, int):
        image = x[:, :, start : start + count]
        return image, torch.cat([x[:, :, :start], x[:, :, start + count :]], 2)
    order = _order(start, count, x.shape[2])[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    moved = x.gather(2, order)
    return moved[:, :, :count], moved[:, :, count:]


def merge_image(image: Tensor, rest: Tensor, start: int | Tensor) -> Tensor:
    """The inverse of ``split_image``."""
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


def text_maps(call: AttentionCall, probabilities: Tensor) -> Tensor:
    """The part of the maps from image tokens to text (B, heads, image, text)."""
    rows = slice(None) if call.kind == CROSS else call.image
    return probabilities[:, :, rows, call.text]


def replace_text_maps(call: AttentionCall, probabilities: Tensor, made: Tensor) -> Tensor:
    """Maps whose image-to-text part is ``made``, with every row summing to 1.

    Cross layers: ``made`` is scaled to the mass that was there. Joint ones: it keeps its mass, and
    the image's keys share what is left as they did before.
    """
    before = text_maps(call, probabilities)
    mass, wanted = before.sum(-1, keepdim=True), made.sum(-1, keepdim=True)
    if call.kind == CROSS:
        return made * (mass / wanted.clamp_min(1e-12))
    made = made / wanted.clamp_min(1.0)
    wanted = wanted.clamp_max(1.0)
    maps = probabilities.clone()
    kept = maps[:, :, call.image, call.image]
    share = torch.where(wanted == mass, 1.0, (1 - wanted) / (1 - mass).clamp_min(1e-12))
    maps[:, :, call.image, call.image] = kept * share
    maps[:, :, call.image, call.text] = made
    return maps
