"""Training the feedback module of ``--cache ilf`` on trajectories of the full network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.run import RunState
from dit_tools.models.calibration import Calibration
from dit_tools.nn.blocks import entering, image
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun
from dit_tools.tasks.calibrate.training import freeze_network, sampling_step, with_gradient

LEARNING_RATE = 2e-4  # of the copied block, with AdamW
GAMMA_RATE = 1e-2  # of its scale, which starts at zero


@dataclass(frozen=True)
class Call:
    """One call of the full network: number, time, branches, inputs and output."""

    number: int
    t: float
    branches: tuple[str, ...]
    inputs: dict[str, Any]
    output: Array


def calibrate(session: CalibrationRun) -> dict[str, Any]:
    """The module's weights by name.

    Each of ``session.rounds`` records a trajectory of the full network from two prompts and replays
    its calls through the network with the cache: at skipped ones the loss is
    ``|cached - full|^2 / |full|^2``.
    """
    import torch

    from dit_tools.nn.feedback import Feedback

    network = session.model.network
    blocks, cache = network.blocks(), session.plan.cache
    leading = max(round(cache.share * len(blocks)), 1)
    feedback: Any = None
    with freeze_network(network):
        optimizer: Any = None
        for done in range(session.rounds):
            session.tell(done, session.rounds)
            calls, run = record(sampling_step(session, done))
            if feedback is None:
                feedback = Feedback.of(blocks[leading - 1], width(network, calls[0]))
                feedback.requires_grad_(True)
                optimizer = torch.optim.AdamW(
                    [
                        {"params": feedback.block.parameters(), "lr": LEARNING_RATE},
                        {"params": [feedback.gamma], "lr": GAMMA_RATE},
                    ],
                    weight_decay=0.0,
                )
            teach(session, feedback, optimizer, calls, run)
    session.tell(session.rounds, session.rounds)
    state = feedback.state_dict()
    return {name: value.detach().float().cpu().numpy() for name, value in state.items()}


def record(session: CalibrationRun) -> tuple[list[Call], RunState]:
    """The calls of a run of the full network, and the run."""
    calls: list[Call] = []

    class Recorded:
        def __init__(self, network: Any, run: RunState):
            self._network, self._run = network, run

        def __call__(self, **inputs: Any) -> Array:
            output, run = self._network(**inputs), self._run
            calls.append(Call(run.call, run.t, run.branches, inputs, output))
            return output

        def blocks(self) -> list[Any]:
            return self._network.blocks()

    _, run = session.plain(wrap=Recorded)
    return calls, run


def teach(
    session: CalibrationRun, feedback: Any, optimizer: Any, calls: Sequence[Call], recorded: RunState
) -> list[float]:
    """Replay calls with the cache; one step a skipped call. Gives the losses.

    ``optimizer`` of None: nothing is learnt.
    """
    network = session.model.network
    run = RunState(recorded.times, recorded.calls_expected, path=recorded.path)
    run.calibration, losses = Calibration({}, module=feedback), []
    with session.plan.cache.attach(network.blocks(), run):
        for call in calls:
            run.call, run.t, run.branches = call.number, call.t, call.branches
            before = run.count["blocks skipped"]
            if not _skips(session, run):
                network(**call.inputs)
                continue
            output = network(**with_gradient(call.inputs))
            assert run.count["blocks skipped"] > before
            loss = ((output - call.output) ** 2).mean() / (call.output**2).mean()
            losses.append(float(loss.detach()))
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return losses


def _skips(session: CalibrationRun, run: RunState) -> bool:
    """Whether the cache will skip at this call, as ``caching._streams`` and ``Interval`` decide.

    Full calls must not record gradients, for what they keep outlives the step.
    """
    cache = session.plan.cache
    last = run.t <= run.times[-2] or run.call == run.calls_expected - 1
    late = run.call - cache.warmup
    return not last and late >= 0 and late % cache.interval != cache.interval - 1


def width(network: Any, call: Call) -> int:
    """Channels of the image stream."""
    from dit_tools.nn.hooks import around_forward

    first, found = network.blocks()[0], []

    def around(position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found.append(image(first, entering(first, args, kwargs)).shape[-1])
        return compute()

    with around_forward([first.module], around, "dit_calibrate"):
        network(**call.inputs)
    return found[0]
