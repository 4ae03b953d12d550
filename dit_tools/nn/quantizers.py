"""From weights to codes: scales, nearest codes, rounding learned on what a layer is fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dit_tools.nn.packed import FP4, FP4_MAX, FP8_MAX, TINY, dequantize, pack, spread
from dit_tools.nn.packed_layout import Layout

SHRINK = 0.01
"""Q-Diffusion's search makes a range smaller by one percent a candidate."""
NORM = 2.4
"""Its exponent of the error that is minimized."""
ZETA, GAMMA = 1.1, -0.1
"""AdaRound's stretched sigmoid, so that zero and one are reached."""


def to_groups(weight: Tensor, layout: Layout) -> Tensor:
    """(rows, columns) as (rows, groups, columns of a group); what is lacking repeats the last."""
    if layout.groups == 1:
        return weight[:, None]
    lacking = -layout.columns % layout.group
    whole = torch.cat([weight, weight[:, -1:].expand(-1, lacking)], 1) if lacking else weight
    return whole.unflatten(1, (layout.groups, layout.group))


def scales(weight: Tensor, layout: Layout, candidates: int = 0) -> dict[str, Tensor]:
    """``scale`` (and ``zero``) of every group of a weight (rows, columns), in the file's types.

    The range of a group is that of its weights, or with ``candidates`` the one among so many,
    each a hundredth smaller, at which nearest codes have the least error (L_2.4, Q-Diffusion).
    """
    parts = to_groups(weight, layout)
    low, high = parts.amin(-1), parts.amax(-1)
    best = _range(low, high, layout)
    if not candidates:
        return best
    least = _error(parts, best, layout)
    for i in range(1, candidates):
        keep = 1 - SHRINK * i
        tried = _range(low * keep, high * keep, layout)
        error = _error(parts, tried, layout)
        better = error < least
        least = torch.where(better, error, least)
        best = {key: torch.where(better, tried[key], best[key]) for key in best}
    return best


def _range(low: Tensor, high: Tensor, layout: Layout) -> dict[str, Tensor]:
    if layout.zero:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = _stored((high - low) / (2**layout.bits - 1))
        zero = (-low / scale.float()).round().clamp(0, 2**layout.bits - 1)
        return {"scale": scale, "zero": zero.to(torch.uint8)}
    whole = float(max(2 ** (layout.bits - 1) - 1, 1))
    top = {"fp8": FP8_MAX, "fp4": FP4_MAX}.get(layout.kind, whole)
    return {"scale": _stored(torch.maximum(low.abs(), high.abs()) / top)}


def _stored(scale: Tensor) -> Tensor:
    """As float16; codes are chosen for the scale that the file holds."""
    return scale.clamp(TINY, 65504.0).half()


def _error(parts: Tensor, tried: Mapping[str, Tensor], layout: Layout) -> Tensor:
    flat = parts.flatten(0, 1)
    one = Layout(len(flat), flat.shape[1], layout.kind, layout.bits, zero=layout.zero)
    tensors = {key: value.reshape(-1, 1) for key, value in tried.items()}
    made = round_to_nearest(flat, tensors, one)
    return (made - flat).abs_().pow_(NORM).sum(1).reshape(parts.shape[:2])


def round_to_nearest(weight: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """What nearest codes stand for: the weight after rounding."""
    return value(nearest(weight, tensors, layout), tensors, layout)


def value(codes: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """The weight in float32 that codes (rows, columns) and scales stand for."""
    if layout.kind != "int":
        return dequantize({**tensors, "packed": pack(codes, layout.bits)}, layout, torch.float32)
    zero = spread(tensors["zero"], layout).float() if layout.zero else 2 ** (layout.bits - 1)
    return (codes.float() - zero) * spread(tensors["scale"], layout).float()


def nearest(weight: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """The codes (rows, columns) whose values are nearest to the weight."""
    scaled = weight / spread(tensors["scale"], layout).float()
    if layout.kind == "fp8":
        return scaled.clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).view(torch.uint8)
    if layout.kind == "fp4":
        edges = torch.tensor([(a + b) / 2 for a, b in zip(FP4, FP4[1:], strict=False)])
        found = torch.bucketize(scaled.abs(), edges)
        return (found + 8 * (scaled < 0) * (found > 0)).to(torch.uint8)
    zero = spread(tensors["zero"], layout).float() if layout.zero else 2 ** (layout.bits - 1)
    return scaled.round_().add_(zero).clamp_(0, 2**layout.bits - 1).to(torch.uint8)


def finish_rounding(codes: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors of the file."""
    return {"packed": pack(codes, layout.bits), **tensors}


# learned rounding -------------------------------------------------------------------------------


def neighbours(weight: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> tuple[Tensor, Tensor]:
    """The codes below and above each weight; equal where the weight is outside of the range."""
    near = nearest(weight, tensors, layout).int()
    if layout.kind == "int":
        up = value(near, tensors, layout) < weight
        other = (near + torch.where(up, 1, -1)).clamp(0, 2**layout.bits - 1)
        return torch.minimum(near, other), torch.maximum(near, other)
    order = _order(layout, weight.device)
    rank = torch.zeros(2**layout.bits, dtype=order.dtype, device=order.device)
    rank[order] = torch.arange(len(order), dtype=order.dtype, device=order.device)
    place = rank[near.long()]
    up = value(near.to(torch.uint8), tensors, layout) < weight
    other = (place + torch.where(up, 1, -1)).clamp(0, len(order) - 1)
    return order[torch.minimum(place, other)].int(), order[torch.maximum(place, other)].int()


def _order(layout: Layout, device: torch.device) -> Tensor:
    """Codes of a floating-point format by rising value, without minus zero and NaN."""
    codes = torch.arange(2**layout.bits, device=device, dtype=torch.uint8)
    one = Layout(1, len(codes), layout.kind, layout.bits)
    values = value(codes[None], {"scale": torch.ones(1, 1, dtype=torch.float16)}, one)[0]
    keep = values.isfinite() & ~((values == 0) & (codes > 0))
    return codes[keep].long()[values[keep].argsort()]


def adam(values: Tensor, rate: float) -> Callable[[Tensor], None]:
    """Adam's step on a tensor in place, for gradients that are worked out by hand."""
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    count = 0

    def step(gradient: Tensor) -> None:
        nonlocal count
        count += 1
        adam_step(values, gradient, first, second, count, rate)

    return step


def adam_step(values: Tensor, gradient: Tensor, first: Tensor, second: Tensor, count: int, rate: float) -> None:
    """Step ``count`` (from 1) of Adam on ``values`` and their two moments, all in place."""
    first.lerp_(gradient, 0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    root = (second / (1 - 0.999**count)).sqrt_().add_(1e-8)
    values.addcdiv_(first, root, value=-rate / (1 - 0.9**count))


def output_error(weight: Tensor, made: Tensor, moments: Tensor) -> float:
    """Mean square error of a layer's output, summed over its channels: tr(D H D^T).

    ``moments``: H = E[x x^T] (columns, columns) of the layer's input.
    """
    difference = weight - made
    return float(((difference @ moments) * difference).sum())


def learn_rounding(
    weight: Tensor, tensors: Mapping[str, Tensor], layout: Layout, moments: Tensor, iterations: int, rate: float = 0.1
) -> Tensor:
    """Codes rounded so that the layer's output suffers least (AdaRound, arXiv:2004.10568).

    Each weight becomes low + h(a) (high - low) with h(a) = clip(1.2 sigmoid(a) - 0.1, 0, 1). The
    loss is the output's error as a share of that of nearest codes, plus the mean of
    1 - |2 h - 1|^b with b falling from 20 to 2 after a fifth of the iterations. Where the outcome
    is no better than nearest codes, those are returned.
    """
    near = nearest(weight, tensors, layout)
    base = output_error(weight, value(near, tensors, layout), moments)
    if base <= 0:
        return near
    low, high = neighbours(weight, tensors, layout)
    bottom = value(low.to(torch.uint8), tensors, layout)
    step = value(high.to(torch.uint8), tensors, layout) - bottom
    share = ((weight - bottom) / step.clamp_min(1e-30)).clamp(0.01, 0.99)
    logits = ((share - GAMMA) / (ZETA - GAMMA)).logit()
    step_of, size = adam(logits, rate), weight.numel()
    for i in range(iterations):
        smooth = logits.sigmoid()
        soft = (smooth * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)
        # The gradient of tr(D H D^T) is 2 D H; written out, it costs one product a step.
        difference = bottom + soft * step - weight
        slope = (difference @ moments).mul_(2 / base).mul_(step)
        after = (i / iterations - 0.2) / 0.8
        if after > 0:
            power, edge = 2 + 18 * (1 - after), 2 * soft - 1
            slope -= edge.sign() * edge.abs().pow_(power - 1) * (2 * power / size)
        inside = (soft > 0) & (soft < 1)
        step_of(slope * inside * smooth * (1 - smooth) * (ZETA - GAMMA))
    made = torch.where(logits >= 0, high, low).to(torch.uint8)
    better = output_error(weight, value(made, tensors, layout), moments) < base
    return made if better else near


def input_scale(tokens: Tensor, peak: Tensor, weight: Tensor, bits: int, candidates: int = 80) -> Tensor:
    """The scale (1,), float16, of tokens (n, columns) at which a layer's output errs least.

    ``weight`` (rows, columns) is the layer's. The range is that of all that was seen, or one of
    those each a hundredth smaller.
    """
    top = 2 ** (bits - 1) - 1
    widest = float(peak.max()) / top
    tried = [_stored(torch.tensor([widest * (1 - SHRINK * i)])) for i in range(candidates)]
    # |e W^T|^2 = e (W^T W) e^T, whichever of the matrices is smaller.
    gram = weight.T @ weight if weight.shape[1] <= weight.shape[0] else None
    errors = []
    for scale in tried:
        made = (tokens / scale.float()).round().clamp_(-top, top) * scale.float() - tokens
        if gram is None:
            errors.append(float((made @ weight.T).square().sum()))
        else:
            errors.append(float(((made @ gram) * made).sum()))
    return tried[errors.index(min(errors))]


def snr(signal: float, noise: float) -> float:
    """Signal-to-noise ratio in dB; infinite without noise, NaN without signal."""
    if signal <= 0:
        return math.nan
    return math.inf if noise <= 0 else 10 * math.log10(signal / noise)
