"""Just-in-time: begin with a third of the tokens and wake the others when they matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.token_reduction import Tokens, Watch
from dit_tools.methods.token_reduction._cells import token_mask
from dit_tools.methods.token_reduction._subset import Choosing, compute_subset


@method(
    paper="arXiv:2603.10744",
    year=2026,
    title="Just-in-Time: Training-Free Spatial Acceleration for Diffusion Transformers",
    authors="Sun, Li, Ren, et al.",
    needs={"blocks"},
    identity={"first": 1.0, "second": 1.0},
)
class Jit(Tokens):
    """Run the network on a growing set of anchor tokens; the others follow by interpolation.

    The network sees the anchors alone, with their true positions. Their velocity is spread over
    the grid, ``u = S u_a + (I - S S') Phi(u_a)``: Phi takes the nearest anchor and blurs; anchors
    keep their own. After ``until`` of the steps the tokens where the velocity varies most in
    3 x 3 tokens become anchors up to a share ``second``, later all of them. Tokens that wake get
    the noise level of the time: ``y* = alpha Phi(x0) + sigma eps`` with the run's own first noise.
    Two network stages with fewer tokens; what enters the last is complete.

    Differs from the paper: the flow that carries a waking token to ``y*`` is one step long, the
    step before it wakes, and reaches it exactly at ``blend`` 1 (the reference code moves a third of
    the way, which leaves a wrong noise level). So the solver must be of first order. It works on
    any noise path. The paper's times are ``--schedule beta``. A network of few tokens gains
    nothing: the 16 of emoji cost about what fewer do.
    """

    whole_runs = True

    first: float = param(0.35, "share of tokens in the first stage; 1 = exact", gt=0, le=1)
    second: float = param(0.62, "share of tokens in the second stage", gt=0, le=1)
    until: tuple[float, float] = param((0.4, 0.65), "ends of both, share of steps", ge=0, le=1)
    blend: float = param(1.0, "how far waking tokens are moved to their noise level", ge=0, le=1)

    def compose(self, plan: Any) -> None:
        """Refuses caches, solvers whose step is not of first order and without noise, two models.

        Stages are counted over all steps of one model, and a waking token is put in place by the
        prediction that the solver gets.
        """
        super().compose(plan)
        for field, name in (("combine", plan.combine.info.name), ("highres", _climbs(plan))):
            if name != "none" and self.first < 1:
                both = f"--tokens {self.info.name} and --{field} {name}"
                raise UsageError(f"{both}: its stages are over all steps of one run", "give one of them")
        solver = plan.solver
        plain = solver.info.name == "euler" or (solver.info.name == "ddim" and solver.eta == 0 and solver.clip is None)
        if not plain and self.first < 1:
            both = f"--tokens {self.info.name} and --solver {solver.info.name}"
            reason = "a waking token is put in place by a step of first order"
            raise UsageError(f"{both}: {reason}", "use --solver euler")

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[Watch]:
        """Raises UnsupportedError for blocks that cannot run on some of their tokens."""
        if self.first == 1:
            return nullcontext(Watch())
        return compute_subset(_Watch(self, run), blocks, run, self.info.name)

    def tokens_at(self, call: int, run: RunState) -> int:
        """How many tokens a call computes."""
        steps, total = len(run.times) - 1, run.grid[0] * run.grid[1]
        ends = [math.floor(share * steps) for share in self.until]
        shares = (self.first, max(self.first, self.second), 1.0)
        stage = sum(call >= end for end in ends)
        return min(max(round(shares[stage] * total), 1), total)


def _climbs(plan: Any) -> str:
    """The method of ``--highres`` if it samples in several runs, otherwise ``none``."""
    return plan.highres.info.name if plan.highres.several_runs else "none"


class _Watch(Choosing):
    """The state of one run. ``filling`` holds the anchors; None once all tokens are awake."""

    def __init__(self, jit: Jit, run: RunState):
        self._jit, self._run = jit, run
        self._filling: Any = None
        self._noise: Any = None

    def choose(self) -> Array | None:
        """The anchors; the first call of a run, at which nothing is known, chooses a grid."""
        if self._run.call == 0 and self._filling is None:
            self._begin()
        return None if self._filling is None else self._filling.anchors

    def _begin(self) -> None:
        from dit_tools.nn.token_interpolation import Interpolation, first_anchors

        run, count = self._run, self._jit.tokens_at(0, self._run)
        if count < run.grid[0] * run.grid[1]:
            self._filling = Interpolation(first_anchors(run.grid, count, 1), run.grid)

    def branch(self, name: str, prediction: Prediction) -> Prediction:
        """The velocity of anchors, spread over all tokens."""
        if self._filling is None:
            return prediction
        self._settle(prediction.x)
        mask = token_mask(self._filling.anchors, self._run.grid, prediction.raw)
        spread = self._filling(prediction.velocity)
        raw = raw_of(prediction, data_of(prediction, spread))
        return prediction.with_raw(prediction.raw.where(mask, raw))

    def _settle(self, x: Array) -> None:
        """Bring the first grid, made before latents were seen, to their number and device."""
        from dit_tools.nn.token_interpolation import Interpolation

        anchors = self._filling.anchors
        if anchors.shape[0] != x.shape[0] or anchors.device != x.device:
            anchors = anchors.to(x.device).expand(x.shape[0], -1)
            self._filling = Interpolation(anchors, self._run.grid)

    def guided(self, prediction: Prediction) -> Prediction:
        """Wake tokens, where the next call has more of them."""
        run, jit = self._run, self._jit
        if self._noise is None:
            self._noise = prediction.eps
        if self._filling is None:
            return prediction
        count = jit.tokens_at(run.call + 1, run)
        if count == self._filling.anchors.shape[1]:
            return prediction
        from dit_tools.nn.token_interpolation import Interpolation, add_tokens, importance

        old, weight = self._filling, importance(prediction.velocity, run.grid)
        anchors = add_tokens(old.anchors, weight, count)
        everything = run.grid[0] * run.grid[1]
        self._filling = Interpolation(anchors, run.grid) if count < everything else None
        awake = token_mask(anchors, run.grid, prediction.raw)
        waking = awake & ~token_mask(old.anchors, run.grid, prediction.raw)
        moved = self._moved(prediction, old(prediction.x0), run.times[run.call + 1])
        return prediction.with_raw(moved.where(waking, prediction.raw))

    def _moved(self, p: Prediction, data: Array, s: float) -> Array:
        """The raw output with which a first-order step to ``s`` ends at the target's noise level.

        ``alpha_t x0 + sigma_t eps = x`` and ``alpha_s x0 + sigma_s eps = y*``, solved for x0.
        """
        path, t = p.path, p.t
        target = path.alpha(s) * data + path.sigma(s) * self._noise
        determinant = path.alpha(t) * path.sigma(s) - path.alpha(s) * path.sigma(t)
        x0 = (path.sigma(s) * p.x - path.sigma(t) * target) / determinant
        blend = self._jit.blend
        return blend * raw_of(p, x0) + (1 - blend) * p.raw


def data_of(p: Prediction, velocity: Array) -> Array:
    """The clean data at which the velocity ``eps - x0`` is ``velocity``."""
    alpha, sigma = p.path.alpha(p.t), p.path.sigma(p.t)
    return (p.x - sigma * velocity) / (alpha + sigma)


def raw_of(p: Prediction, x0: Array) -> Array:
    """The raw output, of the kind of ``p``, that says ``x0`` at its place and time (sigma > 0)."""
    alpha, sigma = p.path.alpha(p.t), p.path.sigma(p.t)
    eps = (p.x - alpha * x0) / sigma
    return {"flow": eps - x0, "eps": eps, "v": alpha * eps - sigma * x0, "x0": x0}[p.kind]
