"""Perturbing the self-attention of a diffusers transformer's blocks while a context lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from dit_tools.core.blocks import Block
from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.blocks import self_attention


@contextmanager
def softened(blocks: Sequence[Block], chosen: Mapping[int, Sequence[int] | None], share: float) -> Iterator[None]:
    """Inside the context attention maps are ``(1 - share) A + share I``.

    ``chosen``: block index -> its heads, None for all. Raises UnsupportedError when none of the
    chosen blocks has such attention, or for a block or head that is not there.
    """
    with ExitStack() as stack:
        hooked = 0
        for index, heads in chosen.items():
            if index >= len(blocks):
                raise UnsupportedError(f"--guidance soft-pag: no block {index}", f"there are {len(blocks)}")
            attention = self_attention(blocks[index])
            if attention is not None:
                _hook(stack, attention, heads, share)
                hooked += 1
        if not hooked:
            raise UnsupportedError(
                "--guidance soft-pag: none of the chosen blocks has self-attention to perturb",
                "choose others, such as depth=0..1",
            )
        yield


def _hook(stack: ExitStack, attention: Any, heads: Sequence[int] | None, share: float) -> None:
    values: list[torch.Tensor] = []
    count = int(attention.heads)
    if heads is not None and max(heads) >= count:
        raise UnsupportedError(f"--guidance soft-pag: no head {max(heads)}", f"each block has {count}")

    def keep(module: Any, args: Any, output: torch.Tensor) -> None:
        values[:] = [output]

    def mix(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (_mixed(args[0], values.pop(), count, heads, share), *args[1:])

    stack.callback(attention.to_v.register_forward_hook(keep).remove)
    stack.callback(attention.to_out[0].register_forward_pre_hook(mix).remove)


def _mixed(
    output: torch.Tensor, value: torch.Tensor, count: int, heads: Sequence[int] | None, share: float
) -> torch.Tensor:
    """Head outputs (B, N, heads * d) drawn towards the values, which may be shared by groups."""
    split = output.unflatten(-1, (count, -1))
    value = value.unflatten(-1, (-1, split.shape[-1]))
    value = value.repeat_interleave(count // value.shape[-2], -2).to(output.dtype)
    weight = torch.full((count, 1), share, dtype=output.dtype, device=output.device)
    if heads is not None:
        kept = [head for head in range(count) if head not in set(heads)]
        weight[kept] = 0
    return ((1 - weight) * split + weight * value).flatten(-2)
