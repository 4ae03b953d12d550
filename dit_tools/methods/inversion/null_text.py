"""Null-text inversion: what stands for no prompt is tuned until guided sampling comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array, concat, convert_like
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, ode_step
from dit_tools.methods.inversion import Inversion
from dit_tools.methods.inversion.ddim import DdimInversion

Condition = Mapping[str, Array]
Guided = Any
"""A denoiser of ``dit_tools.sampling.denoiser``, which may not be imported here: branches and their join."""
STATES, POOLED, MASK = "encoder_hidden_states", "pooled_projections", "encoder_attention_mask"
JITTER = 0.01
"""Of an embedding's own size: sets copies of one token apart, which else would stay equal."""


@method(
    paper="arXiv:2211.09794",
    year=2022,
    title="Null-text Inversion for Editing Real Images using Guided Diffusion Models",
    authors="Mokady, Hertz, Aberman, Pritch, Cohen-Or",
    needs={"gradients"},
)
class NullText(Inversion):
    """DDIM inversion without guidance gives pivots; then, step by step, the embedding of the empty
    prompt is tuned so that a guided step leads from one pivot to the next (Alg. 1).

    For guidance well above 1, where inexact inversions do not come back. Adam with the rate
    ``rate (1 - i / 2N)`` in units of the embedding's own size, at most ``iterations`` times a step,
    until the error is below ``tolerance (1 + 2 i 50 / N)`` of the latents' variance; the paper's
    constants. Where padding is masked the empty prompt is a token or two, too few to tune: they are
    repeated up to ``tokens`` times, which by itself changes nothing. ``start=prompt, iterations=0``
    is negative-prompt inversion (Miyake et al. 2023). The result is tied to prompt, guidance and
    steps; another prompt then edits.
    """

    guided = True
    carries = ("nulls",)

    iterations: int = param(10, "largest number of optimization steps per sampling step", ge=0, le=1000)
    rate: float = param(0.1, "learning rate, relative to the norm of the embedding", gt=0, le=1)
    tolerance: float = param(1e-5, "error at which the optimization of a step ends", ge=0)
    tokens: int = param(16, "number of tokens to optimize where padding is masked", ge=1, le=1024)
    start: str = param("null", "embedding to start from", choices=("null", "prompt"))

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """Three calls a step, and one to begin with and one for every tuning where there are any.

        ``nulls`` (steps, K): the tuned embeddings, flat. Raises UnsupportedError without guidance,
        or where the empty prompt is no embedding.
        """
        plain = _guided(denoise)
        pivots = DdimInversion(refine=0).trajectory(lambda x, t: _precise(plain.branch("cond", x, t), x), x0, times)
        null = self._first(plain.conditions["uncond" if self.start == "null" else "cond"])
        x, found, steps = pivots[-1], [], len(times) - 1
        for i in range(steps):
            t, s = times[i], times[i + 1]
            cond = _precise(plain.branch("cond", x, t), x)
            if self.iterations:
                null = self._tuned(plain, cond, null, (x, pivots[-2 - i]), (t, s), i / steps)
            x = ode_step(_joined(plain, cond, null, x, t), x, t, s)
            found.append(null)
        return Inverted(pivots[-1], {"nulls": convert_like(concat(found), x0)})

    def _first(self, empty: Condition) -> Array:
        """The embedding to begin with, flat (1, K): its tokens, then the pooled vector."""
        import numpy as np

        states = empty[STATES][:1]
        if MASK in empty:
            own = max(int(empty[MASK][:1].sum()), 1)
            copies = max(min(self.tokens, states.shape[1]) // own, 1) if self.iterations else 1
            states = concat([states[:, :own]] * copies, 1)
            if copies > 1:
                size = float((states * states).mean()) ** 0.5
                drawn = np.random.default_rng(0).standard_normal(tuple(states.shape))
                states = states + convert_like(JITTER * size * drawn, states)
        parts = [states.reshape(1, -1)]
        return concat([*parts, empty[POOLED][:1]] if POOLED in empty else parts, 1)

    def _tuned(
        self,
        plain: Guided,
        cond: Prediction,
        null: Array,
        ends: tuple[Array, Array],
        times: tuple[float, float],
        done: float,
    ) -> Array:
        """The embedding that leads from one of the ``ends`` to the other best."""
        import torch

        (x, goal), (t, s) = ends, times
        enough = self.tolerance * (1 + 100 * done) * float(goal.var())
        tuned = null.clone().float().requires_grad_(True)
        rate = self.rate * (1 - done / 2) * float(null.float().square().mean().sqrt())
        optimizer = torch.optim.Adam([tuned], lr=rate)
        best, least = null, float("inf")
        for again in range(self.iterations + 1):
            with torch.enable_grad():
                error = (ode_step(_joined(plain, cond, tuned, x, t), x, t, s) - goal).square().mean()
            if float(error.detach()) < least:
                best, least = tuned.detach().clone(), float(error.detach())
            if least < enough or again == self.iterations:
                break
            (tuned.grad,) = torch.autograd.grad(error, tuned)  # of the weights, nothing
            optimizer.step()
        return best

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """DDIM with the tuned embeddings in place of the empty prompt's."""
        return Nulled(state["nulls"])


class Nulled(Stepper):
    """DDIM whose empty prompt is another at every step: ``nulls`` (steps, K)."""

    def __init__(self, nulls: Array):
        self.nulls = nulls

    def calls(self, steps: int) -> int:
        """Two a step."""
        return 2 * steps

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """Two network calls a step."""
        plain, total = _guided(denoise), len(times) - 1
        for i in range(total):
            cond = _precise(plain.branch("cond", x, times[i]), x)
            p = _joined(plain, cond, self.nulls[i : i + 1], x, times[i])
            x = ode_step(p, x, times[i], times[i + 1])
            yield Step(i, total, times[i + 1], x, p)


def _guided(denoise: Any) -> Guided:
    """The denoiser itself. Raises UnsupportedError where it has no branch for no prompt."""
    plain = denoise
    conditions = getattr(plain, "conditions", {})
    if set(conditions) != {"cond", "uncond"}:
        raise UnsupportedError(
            "--inversion null-text: tunes what guidance takes for no prompt, and there is none", "add --cfg-scale 5"
        )
    if len(getattr(conditions["uncond"].get(STATES), "shape", ())) != 3:
        raise UnsupportedError(
            "--inversion null-text: this model has no embedding of the empty prompt to tune", "use --inversion edict"
        )
    return plain


def _joined(plain: Guided, cond: Prediction, null: Array, x: Array, t: float) -> Prediction:
    """The guided prediction with ``null`` (1, K) in place of the empty prompt's embedding."""
    uncond = plain.branch("uncond", x, t, _saying(plain.conditions["uncond"], null))
    return plain.join({"cond": cond, "uncond": _precise(uncond, x)}, x, t)


def _saying(condition: Condition, null: Array) -> Condition:
    """A condition with other text, in every row. Raises UnsupportedError for another length."""
    said = dict(condition)
    rows, length, width = said[STATES].shape
    pooled = said[POOLED].shape[1] if POOLED in said else 0
    count = (null.shape[1] - pooled) // width
    if count * width + pooled != null.shape[1] or not 0 < count <= length or (MASK not in said and count != length):
        raise UnsupportedError(
            "--inversion null-text: embeddings of another length of text", "give the --max-tokens of the inversion"
        )
    null = concat([null] * rows)
    states = null[:, : count * width].reshape(rows, count, width)
    states = _like(states, said[STATES])
    said[STATES] = concat([states, said[STATES][:, count:]], 1)
    if MASK in said:
        said[MASK] = concat([said[MASK][:, :count] * 0 + 1, said[MASK][:, count:] * 0], 1)
    if pooled:
        said[POOLED] = _like(null[:, count * width :], said[POOLED])
    return said


def _like(x: Array, other: Array) -> Array:
    """``x`` with the dtype of ``other``, gradients kept."""
    return x.to(other.dtype) if hasattr(x, "to") else x.astype(other.dtype)


def _precise(p: Prediction, x: Array) -> Prediction:
    """The prediction in the precision of the latents."""
    return p.with_raw(_like(p.raw, x))
