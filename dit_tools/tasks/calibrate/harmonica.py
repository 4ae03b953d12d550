"""Training the table of ``--cache harmonica`` along whole runs that use what they cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.forecast import Tree, map_tree
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.nn.blocks import modules
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun, Probe
from dit_tools.tasks.calibrate.training import freeze_network, sampling_step, with_gradient

CLAMP = 5.0  # rho stays in [-5, 5], as in the paper's code
START = 0.5  # of |rho|; the sign is that of the hand-made table
LEARNING_RATE = 0.15  # of Adam, a step a trajectory; the paper trains far longer


def calibrate(session: CalibrationRun) -> dict[str, Any]:
    """``rho`` (T, M): a number for every call and every attention and MLP.

    Each of ``session.rounds`` is a trajectory of two prompts, drawn in full and then with what is
    cached, which moves its latents on. With ``r = sigmoid(rho_t)`` the loss of a call is
    ``|full - cached|^2 / |full|^2 + beta e mean(1 - (1 - r)^2)``, on guided predictions; ``e`` is
    the first term's mean where everything is computed at every second call. Differs from the paper,
    for it must learn in tens of trajectories, not thousands:

    - ``full`` is the prediction of the full trajectory, not of the full network at the cached one's
      latents, so that errors that add up over calls count as they do in the image; this stands in
      for the paper's weights ``lambda_t``;
    - the price is not ``r``: reusing a share of an output costs ``(1 - r)^2`` of reusing all of it,
      and a price of the same form drives ``rho`` to a clear yes or no, which is how it is used;
      for the same reason what is reused is the last output whose ``rho`` was positive;
    - ``rho`` starts from the hand-made table that computes every second call, since modules that
      start alike learn alike, and could not take turns.
    """
    import torch

    router = _Router(session)
    optimizer = torch.optim.Adam([router.rho], lr=LEARNING_RATE)
    with freeze_network(session.model.network):
        for done in range(session.rounds):
            session.tell(done, session.rounds)
            few = sampling_step(session, done)
            full: dict[int, Array] = {}
            few.plain(correct=partial(_keep, full))
            if not done:
                router.price = session.plan.cache.beta * _reference(few, full)
            optimizer.zero_grad()
            probe = Probe(session.plan.cache, None, router.wrap, router.attach)
            few.run(probe, partial(router.learn, full))
            optimizer.step()
            router.rho.data.clamp_(-CLAMP, CLAMP)
    session.tell(session.rounds, session.rounds)
    return {"rho": router.rho.detach().cpu().numpy()}


def _keep(outputs: dict[int, Array], call: int, prediction: Prediction) -> Prediction:
    outputs[call] = prediction.raw
    return prediction


def _reference(session: CalibrationRun, full: Mapping[int, Array]) -> float:
    """The mean loss of a call with the hand-made table; 1 where that has none."""
    found: dict[int, Array] = {}
    even = replace(session.plan.cache, calibration="even")
    session.run(Probe(even), partial(_keep, found))
    losses = [float(_miss(found[call], full[call])) for call in full]
    return sum(losses) / len(losses) or 1.0


def _miss(guess: Array, truth: Array) -> Array:
    return ((guess - truth) ** 2).mean() / (truth**2).mean()


class _Router:
    """The numbers that are trained, and the network that trains them while it is sampled."""

    def __init__(self, session: CalibrationRun):
        import torch

        network: Any = session.model.network
        self.count = len(modules(network.blocks()))
        steps = session.plan.solver.calls(session.plan.steps)
        start = torch.full((steps, self.count), START, device=network.module.device)
        start[1:-1:2] *= -1.0
        self.rho = start.requires_grad_()
        self.price = 1.0
        self._kept: dict[tuple[str, ...], list[Tree]] = {}
        self._run: RunState = None  # type: ignore[assignment]

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Hook attention and MLP: outputs are mixed with the last ones."""
        from dit_tools.nn.hooks import around_forward

        self._run, self._kept = run, {}
        return around_forward([m for _, m in modules(blocks)], self._module, "dit_calibrate")

    def _module(self, position: int, compute: Any, args: Any, kwargs: Any) -> Tree:
        output = compute()
        if not self._trained(self._run.call):
            return output
        kept = self._kept.setdefault(self._run.branches, [None] * self.count)
        fresh, old = map_tree(lambda part: part.detach(), output), kept[position]
        rho = self.rho[self._run.call, position]
        if old is None or rho > 0:
            kept[position] = fresh  # what is reused grows old as it will in use
        if old is None:
            return output
        share = rho.sigmoid()
        return map_tree(lambda new, past: share * new + (1 - share) * past, output, old)

    def _trained(self, call: int) -> bool:
        """Whether a call may reuse anything: all but those behind the plan's number."""
        return call < len(self.rho) - 1

    def wrap(self, network: Any, run: RunState) -> Any:
        """The network, recording gradients."""
        return _Recording(network)

    def learn(self, full: Mapping[int, Array], call: int, prediction: Prediction) -> Prediction:
        """Loss and gradients of a call; the prediction goes on without them."""
        raw = prediction.raw
        if call and self._trained(call):
            price = self.price * (1 - (1 - self.rho[call].sigmoid()) ** 2).mean()
            (_miss(raw, full[call]) + price).backward()
        return prediction.with_raw(raw.detach())


class _Recording:
    def __init__(self, network: Any):
        self._network = network

    def __call__(self, **inputs: Any) -> Array:
        return self._network(**with_gradient(inputs))

    def blocks(self) -> list[Any]:
        return self._network.blocks()
