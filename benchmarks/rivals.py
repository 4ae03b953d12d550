"""Other implementations of caches, to be measured in the same process: diffusers' own hooks.

A rival is written as a spec: ``first-block:threshold=0.05``, ``taylorseer:interval=3,order=1``,
``magcache:threshold=0.06``. Its hooks go on a copy of the model's transformer. Branches must share
a network call, as PixArt's and the built-in models' do.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

NAMES = ("first-block", "taylorseer", "magcache")


def parse(text: str) -> tuple[str, dict[str, float]]:
    """Name and numbers of a spec. Raises ValueError for an unknown one."""
    name, _, rest = text.partition(":")
    if name not in NAMES:
        raise ValueError(f"rival={text}: choose from {', '.join(NAMES)}")
    pairs = (part.partition("=") for part in rest.split(",") if part)
    return name, {key: float(value) for key, _, value in pairs}


class RivalNetwork:
    """The transformer with the library's hooks; counts the blocks that were computed."""

    offers: frozenset[str] = frozenset({"torch"})

    def __init__(self, module: Any):
        from dit_tools.models.blocks import blocks
        from dit_tools.models.torch_network import TorchNetwork

        self.module, self.computed, self._network = module, 0, TorchNetwork(module)
        for block in blocks(module):
            attention = getattr(block.module, "attn1", None) or block.module.attn
            attention.to_q.register_forward_hook(self._count)  # runs when the block really does

    def _count(self, *_: Any) -> None:
        self.computed += 1

    def start(self) -> None:
        """Forget everything of the run before."""
        from diffusers.hooks import HookRegistry

        HookRegistry.check_if_exists_or_initialize(self.module).reset_stateful_hooks(recurse=True)
        self.computed = 0

    def __call__(self, **inputs: Any) -> Any:
        """The raw output."""
        from diffusers.models.cache_utils import CacheMixin

        with CacheMixin.cache_context(self.module, "all"):  # type: ignore[arg-type]
            return self._network(**inputs)

    def blocks(self) -> list[Any]:
        """None: they carry hooks already."""
        return []


def model_with(model: Any, text: str, steps: int, ratios: Sequence[float] = ()) -> Any:
    """A copy of the model whose network carries a rival's hooks. ``ratios`` are magcache's."""
    import torch
    from diffusers import hooks

    name, given = parse(text)
    module = copy.deepcopy(model.network.module)
    if name == "first-block":
        hooks.apply_first_block_cache(module, hooks.FirstBlockCacheConfig(**given))
    elif name == "taylorseer":
        hooks.apply_taylorseer_cache(module, hooks.TaylorSeerCacheConfig(
            cache_interval=int(given.get("interval", 5)), max_order=int(given.get("order", 1)),
            disable_cache_before_step=3, disable_cache_after_step=steps - 1,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[r"transformer_blocks\.\d+\.(attn\d?|ff)"],
        ))  # fmt: skip
    else:
        config = hooks.MagCacheConfig(
            num_inference_steps=steps, mag_ratios=list(ratios) or [1.0] * steps, **given
        )
        hooks.apply_mag_cache(module, config)
    return replace(model, network=RivalNetwork(module))
