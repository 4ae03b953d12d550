"""Training the table of ``--cache harmonica`` along whole runs that use what they cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from dit_tools.caching._apart import modules
from dit_tools.caching._calibration import Calibration
from dit_tools.caching._forecast import Tree, each
from dit_tools.calibrating.session import Probe, Session
from dit_tools.calibrating.training import frozen, with_gradient
from dit_tools.core.arrays import Array
from dit_tools.core.run import Run

CLAMP = 5.0  # rho stays in [-5, 5], as in the paper's code
START = 1.0  # rho at first: mostly computing
LEARNING_RATE = 0.2  # of Adam, a step a trajectory; the paper trains far longer


def calibrate(session: Session) -> dict[str, Any]:
    """``rho`` (T, M): a number for every call and every attention and MLP.

    Each of ``session.rounds`` is one trajectory of all prompts. The loss of a call is
    ``lambda_t |full - cached|^2 / |full|^2 + beta mean(sigmoid(rho_t))``; the cached output moves
    the latents on. ``lambda_t`` is how far the final latents move when everything is reused at that
    call alone, relative to its mean over calls. Differs from the paper: it is measured once.
    """
    import torch

    router = _Router(session)
    router.weights = _influence(session, router)
    optimizer = torch.optim.Adam([router.rho], lr=LEARNING_RATE)
    with frozen(session.model.network):
        for done in range(session.rounds):
            session.tell(done, session.rounds)
            moved = session.with_prompts(session.prompts, session.seed + 1000 * (done + 1))
            optimizer.zero_grad()
            moved.run(Probe(session.plan.cache, None, router.wrap, router.attach))
            optimizer.step()
            router.rho.data.clamp_(-CLAMP, CLAMP)
    session.tell(session.rounds, session.rounds)
    return {"rho": router.rho.detach().cpu().numpy()}


def _influence(session: Session, router: _Router) -> list[float]:
    """``lambda_t``, mean 1; first and last call count 0, for they are always computed."""
    import numpy as np

    few = session.with_prompts(session.prompts[:2], session.seed)
    plain, run = few.plain()
    calls = run.calls_expected
    found = [0.0] * calls
    for call in range(1, calls - 1):
        rho = np.full((calls, router.count), CLAMP, np.float32)
        rho[call] = -CLAMP
        x, _ = few.cached(Calibration({}, {"rho": rho}), threshold=0.5)
        found[call] = float(((x - plain) ** 2).mean())
    mean = sum(found) / max(calls - 2, 1)
    return [value / mean if mean else 1.0 for value in found]


class _Router:
    """The numbers that are trained, and the network that trains them while it is sampled."""

    def __init__(self, session: Session):
        import torch

        network: Any = session.model.network
        self.count = len(modules(network.blocks()))
        steps = session.plan.solver.calls(session.plan.steps)
        start = torch.full((steps, self.count), START, device=network.module.device)
        self.rho = start.requires_grad_()
        self.weights: list[float] = []
        self._beta = session.plan.cache.beta
        self._kept: dict[tuple[str, ...], list[Tree]] = {}
        self._mixing = False
        self._run: Run = None  # type: ignore[assignment]

    def attach(self, blocks: Sequence[Any], run: Run) -> AbstractContextManager[None]:
        """Hook attention and MLP: outputs are mixed with the last ones while a call is trained."""
        from dit_tools.nn.hooks import around_forward

        self._run, self._kept = run, {}
        return around_forward([m for _, m in modules(blocks)], self._module, "dit_calibrate")

    def _module(self, position: int, compute: Any, args: Any, kwargs: Any) -> Tree:
        output = compute()
        if not self._mixing:
            return output
        kept = self._kept.setdefault(self._run.branches, [None] * self.count)
        if kept[position] is not None:
            share = self.rho[self._run.call, position].sigmoid()
            output = each(lambda new, old: share * new + (1 - share) * old, output, kept[position])
        kept[position] = each(lambda part: part.detach(), output)
        return output

    def wrap(self, network: Any, run: Run) -> Any:
        """The network that gives the mixed output, and gradients of how far it is from the full."""
        return _Taught(network, run, self)

    def output(self, network: Any, run: Run, inputs: dict[str, Any]) -> Array:
        """Full output, mixed output, loss, gradients; gives the mixed output."""
        full = network(**inputs)
        last = run.t <= run.times[-2]
        if last:
            return full
        self._mixing = True
        try:
            mixed = network(**with_gradient(inputs))
        finally:
            self._mixing = False
        if run.call and run.call < len(self.rho):
            miss = ((mixed - full) ** 2).mean() / (full**2).mean()
            price = self._beta * self.rho[run.call].sigmoid().mean()
            (self.weights[run.call] * miss + price).backward()
        return mixed.detach()


class _Taught:
    def __init__(self, network: Any, run: Run, router: _Router):
        self._network, self._run, self._router = network, run, router

    def __call__(self, **inputs: Any) -> Array:
        return self._router.output(self._network, self._run, inputs)

    def blocks(self) -> list[Any]:
        return self._network.blocks()
