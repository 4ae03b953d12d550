"""Hidden states of a transformer's blocks as maps, and energies that compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dit_tools.core.blocks import FIRST, Block


class _ForwardStopped(Exception):
    """The last module whose output was wanted has run."""


@contextmanager
def capture_output(module: nn.Module, store: dict[str, Any], name: str, stop: bool = False) -> Iterator[None]:
    """Keep what ``module`` gives in ``store[name]``, with its gradients.

    ``stop`` ends the forward pass there, so that no time and no graph is spent on the rest: the
    context is left as if the pass had ended.
    """

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        store[name] = output
        if stop:
            raise _ForwardStopped

    handle = module.register_forward_hook(keep)
    try:
        yield
    except _ForwardStopped:
        pass
    finally:
        handle.remove()


def features(
    blocks: Sequence[Block], chosen: Sequence[int], grid: tuple[int, int], run: Callable[[], Any]
) -> list[Tensor]:
    """Hidden states (B, D, rows, columns) of the chosen blocks while ``run()`` calls the network.

    ``chosen`` rises; the call ends after the last of them. ``grid``: rows and columns of image tokens.
    """
    store: dict[str, Any] = {}
    with ExitStack() as stack:
        for i in chosen:
            stack.enter_context(capture_output(blocks[i].module, store, str(i), stop=i == chosen[-1]))
        run()
    return [_map(blocks[i], store[str(i)], grid) for i in chosen]


def image_tokens(block: Block, made: Any, count: int) -> Tensor:
    """The ``count`` image tokens (B, count, D) of a block's output; text tokens that go along are cut off."""
    tokens = made if block.output is None else made[block.output]
    if tokens.shape[1] == count:
        return tokens
    first = 0 if block.spec.joined == FIRST else tokens.shape[1] - count
    return tokens[:, first : first + count]


def _map(block: Block, made: Any, grid: tuple[int, int]) -> Tensor:
    """The image tokens of a block's output (B, N, D) as a map (B, D, rows, columns)."""
    tokens = image_tokens(block, made, grid[0] * grid[1]).float()
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def token_similarity(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean cosine of two maps (1, D, h, w) within a mask (1, 1, h, w), in [-1, 1]; 1 if empty."""
    if not bool(mask.any()):
        return torch.ones((), dtype=a.dtype)
    cosine = functional.cosine_similarity(a, b, dim=1)[:, None]
    return (cosine * mask).sum() / mask.sum()


def mean_similarity(a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> Tensor:
    """Cosine, as a share 0..1, of the mean features in two masks; 1 where either is empty."""
    if not (bool(mask_a.any()) and bool(mask_b.any())):
        return torch.ones((), dtype=a.dtype)
    means = [(x * m).sum((2, 3)) / m.sum() for x, m in ((a, mask_a), (b, mask_b))]
    return (functional.cosine_similarity(means[0], means[1]).mean() + 1) / 2


def sampled(x: Tensor, places: Tensor) -> Tensor:
    """A map (1, D, h, w) read at ``places`` (h', w', 2), columns and rows of its cells."""
    height, width = x.shape[-2:]
    scale = torch.tensor([width, height], dtype=places.dtype)
    normal = (2 * places + 1) / scale - 1
    return functional.grid_sample(x, normal[None].to(x.dtype), "bilinear", "border", align_corners=False)
