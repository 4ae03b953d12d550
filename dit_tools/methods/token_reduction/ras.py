"""Region-adaptive sampling: compute the tokens in focus, let the others keep what they had."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.token_reduction import Tokens, Watch
from dit_tools.methods.token_reduction._cells import token_mask
from dit_tools.methods.token_reduction._subset import Choosing, compute_subset


@method(
    paper="arXiv:2502.10389",
    year=2025,
    title="Region-Adaptive Sampling for Diffusion Transformers",
    authors="Liu, Yang, Zhang, et al.",
    needs={"blocks"},
    identity={"ratio": 1.0},
)
class Ras(Tokens):
    """Run the network on the tokens that matter now; the others keep their last prediction.

    A call's tokens are chosen by the guided prediction before it: with ``m`` a token's mean
    standard deviation of the predicted velocity over channels, low ones are the subject (in
    focus), and with ``d`` how often a token was left out so far, ``exp(kappa d)`` brings it back.
    Left out are the ``(1 - ratio) N`` tokens of the largest ``m exp(-kappa d)``, or, for the share
    ``1 - high``, of the smallest ``m exp(kappa d)``. Keys and values of left-out tokens are those
    of the last call that computed them, so the others attend to the whole image. The first
    ``start`` calls and every ``refresh``-th after that compute everything.

    Differs from the reference code, whose factor makes a token that was left out more likely to be
    left out again, where the paper wants the opposite; and whose choice is one for the whole batch,
    where each image here has its own. Whatever the solver, a left-out token keeps the network's
    raw output. Memory: keys and values of every layer. A network of few tokens gains nothing: the
    16 of emoji cost less than choosing among them.
    """

    ratio: float = param(0.5, "share of tokens computed; 1 = exact", gt=0, le=1)
    start: int = param(4, "calls at the beginning that compute all tokens", ge=1)
    refresh: int = param(8, "all tokens every N calls after that; 0 = never again", ge=0)
    kappa: float = param(0.1, "how fast left-out tokens come back", ge=0, le=10)
    high: float = param(1.0, "share of left-out tokens with the largest m", ge=0, le=1)
    metric: str = param("std", "m: deviation or length over channels", choices=("std", "norm"))

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[Watch]:
        """Raises UnsupportedError for blocks that cannot run on some of their tokens."""
        if self.ratio == 1:
            return nullcontext(Watch())
        return compute_subset(_Turns(self, run), blocks, run, self.info.name)

    def dense(self, call: int) -> bool:
        """Whether a call computes all tokens."""
        after = call - self.start
        return after < 0 or (after > 0 and self.refresh > 0 and after % self.refresh == 0)


class _Turns(Choosing):
    """A watch for each of the denoisers that take turns on the network."""

    def __init__(self, ras: Ras, run: RunState):
        self._ras, self._run = ras, run
        self._watches: dict[int, _Watch] = {}

    def _watch(self) -> _Watch:
        return self._watches.setdefault(self._run.asker, _Watch(self._ras, self._run))

    def choose(self) -> Array | None:
        """The tokens of a network call."""
        return self._watch().choose()

    def memory(self) -> Any:
        """Keys and values of the current branches."""
        return self._watch().memory()

    def branch(self, name: str, prediction: Prediction) -> Prediction:
        """The prediction of a branch, made whole."""
        return self._watch().branch(name, prediction)

    def guided(self, prediction: Prediction) -> Prediction:
        """Chooses the next call's tokens."""
        return self._watch().guided(prediction)


class _Watch(Choosing):
    """The state of one denoiser. ``drops`` (b, N): how often each token was left out."""

    def __init__(self, ras: Ras, run: RunState):
        self._ras, self._run = ras, run
        self._chosen: Any = None  # (b, n), for the next call
        self._drops: Any = None
        self._memories: dict[tuple[str, ...], Any] = {}
        self._computed: dict[tuple[str, ...], int] = {}  # the last call of these branches
        self._raw: dict[str, Array] = {}
        self._narrow: dict[str, bool] = {}

    def choose(self) -> Array | None:
        """The tokens of a network call; all of them for branches that were away."""
        run, names = self._run, self._run.branches
        fresh = self._computed.get(names) == run.call - 1
        self._computed[names] = run.call
        chosen = self._chosen if fresh else None
        if chosen is None:
            self._memories.pop(names, None)
        self._narrow |= dict.fromkeys(names, chosen is not None)
        return chosen

    def memory(self) -> Any:
        """Keys and values of the current branches; None where no call will ask for them."""
        from dit_tools.nn.token_subset import Memory

        if self._chosen is None and self._ras.dense(self._run.call + 1):
            return None
        return self._memories.setdefault(self._run.branches, Memory())

    def branch(self, name: str, prediction: Prediction) -> Prediction:
        """Left-out tokens keep the branch's last raw output."""
        if self._narrow[name]:
            mask = token_mask(self._chosen, self._run.grid, prediction.raw)
            prediction = prediction.with_raw(prediction.raw.where(mask, self._raw[name]))
        self._raw[name] = prediction.raw
        return prediction

    def guided(self, prediction: Prediction) -> Prediction:
        """Choose the next call's tokens."""
        self._chosen = None
        if not self._ras.dense(self._run.call + 1):
            score = token_scores(prediction.velocity, self._run.grid, self._ras.metric)
            if self._drops is None:
                self._drops = score * 0
            left = select_skipped(score, self._drops, self._ras)  # (b, s)
            self._drops = self._drops.scatter_add(1, left, score.new_ones(left.shape))
            kept = score.new_ones(score.shape).scatter(1, left, 0.0)
            self._chosen = kept.argsort(dim=1, descending=True, stable=True)
            self._chosen = self._chosen[:, : score.shape[1] - left.shape[1]]
        return prediction


def token_scores(velocity: Array, grid: tuple[int, int], metric: str) -> Array:
    """``m`` of every token (b, N) from velocities (b, C, h, w)."""
    cells = velocity.std(1, correction=0) if metric == "std" else (velocity**2).sum(1) ** 0.5  # (b, h, w)
    rows, columns = grid
    patches = cells.reshape(cells.shape[0], rows, cells.shape[1] // rows, columns, -1)
    return patches.mean((2, 4)).flatten(1)


def select_skipped(score: Array, drops: Array, ras: Ras) -> Array:
    """Tokens (b, s) that the next call does not compute."""
    count = score.shape[1] - max(round(ras.ratio * score.shape[1]), 1)
    top = round(ras.high * count)
    urgency = (ras.kappa * drops).exp()
    highest = (score / urgency).topk(top, 1).indices
    others = (score * urgency).scatter(1, highest, float("inf"))
    lowest = others.topk(count - top, 1, largest=False).indices
    return _joined(highest, lowest)


def _joined(one: Array, two: Array) -> Array:
    from dit_tools.core.arrays import concat

    return concat([one, two], 1)
