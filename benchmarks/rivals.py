"""Other implementations of caches, to be measured in the same process: diffusers' and cache-dit's.

A rival is written as a spec. Of diffusers' hooks: ``first-block:threshold=0.05``,
``taylorseer:interval=3,order=1``, ``magcache:threshold=0.06``. Of cache-dit
(``pip install "dit-tools[bench]"``), its DBCache with ``first`` leading blocks (1) always computed:

``dbcache:threshold=0.05``           its gate, full at the first and last call as our first-block
``dbcache:threshold=0.05,order=1``   the same, the rest forecast by its TaylorSeer
``dbcache:interval=3,order=1``       full at the very calls that our taylorseer computes

Hooks go on a copy of the model's transformer. Branches must share a network call, as PixArt's and
the built-in models' do.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

NAMES = ("first-block", "taylorseer", "magcache", "dbcache")


def parse(text: str) -> tuple[str, dict[str, float]]:
    """Name and numbers of a spec. Raises ValueError for an unknown one."""
    name, _, rest = text.partition(":")
    if name not in NAMES:
        raise ValueError(f"rival={text}: choose from {', '.join(NAMES)}")
    pairs = (part.partition("=") for part in rest.split(",") if part)
    return name, {key: float(value) for key, _, value in pairs}


def installed(text: str) -> bool:
    """Whether the library of a rival is there."""
    return parse(text)[0] != "dbcache" or importlib.util.find_spec("cache_dit") is not None


class RivalNetwork:
    """The transformer with a library's hooks; counts the blocks that were computed."""

    offers: frozenset[str] = frozenset({"torch"})

    def __init__(self, module: Any, family: Any, forget: Callable[[Any], None]):
        from dit_tools.models.backends.torch_network import TorchNetwork

        self.module, self.computed, self._network = module, 0, TorchNetwork(module, family)
        self._forget = forget
        for block in self._network.blocks():
            attention = getattr(block.module, "attn1", None) or block.module.attn
            attention.to_q.register_forward_hook(self._count)  # runs when the block really does

    def _count(self, *_: Any) -> None:
        self.computed += 1

    def start(self) -> None:
        """Forget everything of the run before."""
        self._forget(self.module)
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
    name, given = parse(text)
    module = copy.deepcopy(model.network.module)
    if name == "dbcache":
        forget = _cache_dit(module, given, steps)
    else:
        forget = _diffusers(module, name, given, steps, ratios)
    return replace(model, network=RivalNetwork(module, model.family, forget))


def _diffusers(
    module: Any, name: str, given: Mapping[str, Any], steps: int, ratios: Sequence[float]
) -> Callable[[Any], None]:
    """Put diffusers' hooks on; gives what clears them."""
    import torch
    from diffusers import hooks

    if name == "first-block":
        hooks.apply_first_block_cache(module, hooks.FirstBlockCacheConfig(**given))
    elif name == "taylorseer":
        hooks.apply_taylorseer_cache(
            module,
            hooks.TaylorSeerCacheConfig(
                cache_interval=int(given.get("interval", 5)),
                max_order=int(given.get("order", 1)),
                disable_cache_before_step=3,
                disable_cache_after_step=steps - 1,
                taylor_factors_dtype=torch.float32,
                cache_identifiers=[r"transformer_blocks\.\d+\.(attn\d?|ff)"],
            ),
        )
    else:
        config: Any = hooks.MagCacheConfig(num_inference_steps=steps, mag_ratios=list(ratios) or [1.0] * steps, **given)
        hooks.apply_mag_cache(module, config)

    def forget(module: Any) -> None:
        registry = hooks.HookRegistry.check_if_exists_or_initialize(module)
        registry.reset_stateful_hooks(recurse=True)

    return forget


def _cache_dit(module: Any, given: Mapping[str, float], steps: int) -> Callable[[Any], None]:
    """Enable cache-dit; gives what starts its context again.

    By itself it does so one call late: the first call of a second run would still be skipped.
    """
    import cache_dit

    for name in [n for n in logging.root.manager.loggerDict if n.lower().startswith("cache_dit")]:
        logging.getLogger(name).setLevel(logging.ERROR)
    interval, order = int(given.get("interval", 0)), int(given.get("order", 0))
    full = full_calls(steps, interval)

    def configs() -> dict[str, Any]:
        forecast = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
        cache = cache_dit.DBCacheConfig(
            Fn_compute_blocks=int(given.get("first", 1)),
            Bn_compute_blocks=0,
            residual_diff_threshold=given.get("threshold", 0.08),
            max_warmup_steps=3 if interval else 1,
            num_inference_steps=steps,
            steps_computation_mask=[int(call in full) for call in range(steps)],
            steps_computation_policy="static" if interval else "dynamic",
            enable_separate_cfg=False,
        )
        return {"cache_config": cache} | ({"calibrator_config": forecast} if forecast else {})

    cache_dit.enable_cache(module, **configs())
    return lambda module: cache_dit.refresh_context(module, **configs())


def full_calls(steps: int, interval: int, warmup: int = 3) -> set[int]:
    """Calls that our taylorseer computes in full; without an interval the first and the last."""
    if not interval:
        return {0, steps - 1}
    later = {call for call in range(warmup, steps) if (call - warmup) % interval == interval - 1}
    return set(range(min(warmup, steps))) | later | {steps - 1}
