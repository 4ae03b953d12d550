"""Fine-tuning a network with every layer quantized: gradients pass through rounding unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dit_tools.methods.quantization import ActivationStats
from dit_tools.models.model import Model
from dit_tools.tasks.quantize import denoising_error
from dit_tools.tasks.quantize.layers import Layers

SELECTED = re.compile(r"(attn1?\.to_[qkv]|attn\.(to_qkv|qkv)|\bff\w*\.|mlp|feed_forward)")
"""Self-attention and MLPs, by the names that diffusers gives them (QuEST, Sec. 3.3)."""


def finetune_layers(
    model: Model,
    layers: Layers,
    seen: Mapping[str, ActivationStats],
    prompts: Sequence[str],
    steps: int | None,
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, ActivationStats]:
    """What calibration saw, with the weights of the selected layers after fine-tuning.

    Every fourth prompt is not trained on: the weights that are kept are those of the epoch whose
    error is least on it, those before training included. (One prompt serves for both.)
    ``tell`` hears ``{"type": "tuning", "epoch", "error", "unseen"}``: the mean square error of the
    network's output as a share of the output's own, on the calls that are trained on and on those
    of the other prompts.
    """
    root = model.network.module  # type: ignore[attr-defined]
    chosen = {layer.name: layer for layer in layers.linear if layer.layout and layer.packer.tuning}
    scheme = next(iter(chosen.values())).packer
    calls, others = _recorded(model, prompts, steps, scheme.calls)  # type: ignore[attr-defined]
    before = {name: root.get_submodule(name) for name in chosen}
    made = {name: _soft(layer, before[name]) for name, layer in chosen.items()}
    try:
        for name, module in made.items():
            root.set_submodule(name, module)
        picked = [made[name] for name in made if SELECTED.search(name)] or list(made.values())
        _train(root, calls, others, picked, scheme, tell)
    finally:
        for name, module in before.items():
            root.set_submodule(name, module)
    return dict(seen) | {
        name: replace(seen[name], weight=module.latent.detach(), scale=module.scale)
        for name, module in made.items()
        if name in seen
    }


UNSEEN = 4
"""One in so many prompts judges the training, and takes no part in it."""


def _recorded(model: Model, prompts: Sequence[str], steps: int | None, most: int) -> tuple[list[Any], list[Any]]:
    """Arguments and output of at most ``most`` of the network's calls while it samples, and a share
    of those of prompts that are not to be trained on.
    """
    kept: list[list[Any]] = [[]]

    def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output.sample
        kept[-1].append((args, {**kwargs, "return_dict": False}, first.detach().clone()))

    root = model.network.module  # type: ignore[attr-defined]
    handle = root.register_forward_hook(hook, with_kwargs=True)
    try:
        for _ in denoising_error.sample_prompts(model, prompts, steps):
            kept.append([])
    finally:
        handle.remove()
    judges = range(len(prompts) - 1, 0, -UNSEEN)  # the last prompt, and back from there
    seen = [call for i, calls in enumerate(kept) if i not in judges for call in calls]
    unseen = [call for i in judges for call in kept[i]]
    calls = _spread(seen, most)
    return calls, _spread(unseen, max(most // (UNSEEN - 1), 1)) if unseen else calls


def _spread(calls: list[Any], most: int) -> list[Any]:
    stride = max(len(calls) / most, 1)
    return [calls[int(i * stride)] for i in range(min(len(calls), most))]


def _soft(layer: Any, plain: Any) -> Any:
    """A linear layer whose weight and input are quantized in each call."""
    import torch
    from torch import nn
    from torch.nn import functional

    from dit_tools.nn.packed import quantize_tokens
    from dit_tools.nn.quantizers import round_to_nearest as rounded
    from dit_tools.nn.quantizers import scales

    layout = layer.layout

    class Soft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latent = nn.Parameter(plain.weight.detach().float().clone(), requires_grad=False)
            self.bias = plain.bias
            self.scale = scales(self.latent.cpu(), layout, 80)["scale"].to(self.latent.device)

        @property
        def weight(self) -> Any:  # for code that asks for its type
            return plain.weight

        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                step = rounded(self.latent, {"scale": self.scale}, layout) - self.latent
            weight = (self.latent + step).to(x.dtype)
            if layout.act:
                with torch.no_grad():
                    whole, scale = quantize_tokens(x, layout.act)
                    moved = whole * scale - x
                x = x + moved
            return functional.linear(x, weight, plain.bias)

    return Soft()


def _train(
    root: Any, calls: Sequence[Any], others: Sequence[Any], picked: Sequence[Any], scheme: Any, tell: Any
) -> None:
    """Train in place on ``calls``; weights end as they were when ``others`` fared best."""
    import torch

    groups = [
        {"params": [module.latent.requires_grad_(True)], "lr": scheme.rate * float(module.scale.float().mean())}
        for module in picked
    ]
    optimizer = torch.optim.Adam(groups)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, scheme.epochs * len(calls))
    order = torch.Generator().manual_seed(0)

    def judged(epoch: int) -> float:
        unseen = _error(root, others)
        error = unseen if others is calls else _error(root, calls)
        tell({"type": "tuning", "epoch": epoch, "error": error, "unseen": unseen})
        return unseen

    def weights() -> list[Any]:
        return [module.latent.detach().clone() for module in picked]

    least, best = judged(0), weights()
    for epoch in range(scheme.epochs):
        with torch.enable_grad():
            for i in torch.randperm(len(calls), generator=order).tolist():
                optimizer.zero_grad()
                _loss(root, calls[i]).backward()
                optimizer.step()
                fall.step()
        now = judged(epoch + 1)
        if now < least:
            least, best = now, weights()
    for module, weight in zip(picked, best, strict=True):
        module.latent.requires_grad_(False)
        module.latent.copy_(weight)


def _loss(root: Any, call: Any) -> Any:
    args, kwargs, target = call
    difference = root(*args, **kwargs)[0] - target
    return difference.float().square().mean() / target.float().square().mean()


def _error(root: Any, calls: Sequence[Any]) -> float:
    import torch

    with torch.no_grad():
        return sum(float(_loss(root, call)) for call in calls) / len(calls)
