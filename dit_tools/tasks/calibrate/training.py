"""Gradients through a network whose own weights stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dit_tools.tasks.calibrate.calibration_run import CalibrationRun

PROMPTS_PER_ROUND = 2  # prompts of a round: the cost is in the trajectories, not in how many there are


def sampling_step(session: CalibrationRun, done: int) -> CalibrationRun:
    """The session of round ``done``: the next two of its prompts, from noise of their own."""
    prompts = session.prompts
    first, count = done * PROMPTS_PER_ROUND, min(PROMPTS_PER_ROUND, len(prompts))
    chosen = [prompts[(first + i) % len(prompts)] for i in range(count)]
    return session.with_prompts(chosen, session.seed + 1000 * (done + 1))


@contextmanager
def freeze_network(network: Any) -> Iterator[None]:
    """Inside, the weights of a torch network want no gradients."""
    wanted = [p for p in network.module.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def with_gradient(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, the first tensor of numbers asking for gradients, so that the network records."""
    made = dict(inputs)
    for name, value in made.items():
        if getattr(value, "is_floating_point", lambda: False)() and value.ndim > 1:
            made[name] = value.detach().requires_grad_()
            return made
    for name, value in made.items():
        if isinstance(value, list) and value and hasattr(value[0], "detach"):
            made[name] = [item.detach().requires_grad_() for item in value]
            return made
    return made
