"""Stream batch: frames at different noise levels in one network call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array, all_finite, concat
from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.core.steps import transfer
from dit_tools.methods.guidance import Guide
from dit_tools.sampling.denoiser import Condition, drive


@dataclass
class Row:
    """One frame on its way: latents (1, C, h, w) at ``times[level]``, and its own guide."""

    x: Array
    guide: Guide
    level: int = 0


class StreamBatch:
    """Steps every frame on its way by one level with one call of the network.

    ``times``: the levels, falling, and 0; a frame leaves after ``len(times) - 1`` ticks, latency,
    while every tick lets one out. ``conditions``: branch name -> Condition of one image.
    ``noise`` (1, C, h, w) is the same for every frame, so that what does not move stays the same.
    Steps are Euler's on a flow and DDIM's elsewhere. ``network`` and ``state`` are those of a sampler
    whose methods are attached (default: the model's network). ``calls`` counts network calls,
    ``rows`` what they computed.
    """

    def __init__(
        self,
        model: Any,
        conditions: Mapping[str, Condition],
        guidance: Any,
        times: Sequence[float],
        noise: Array,
        network: Any = None,
        state: RunState | None = None,
    ):
        self._model, self._conditions, self._guidance = model, conditions, guidance
        self._network = network or model.network
        self.times, self.noise = tuple(times), noise
        self._rows: list[Row] = []  # the oldest first
        self._run = state or RunState(self.times, len(self.times) - 1)
        self.calls = self.rows = 0

    def push(self, x0: Array) -> Array | None:
        """Let a frame (1, C, h, w) in, go one tick on; the latents that leave, if any do."""
        path, t = self._model.path, self.times[0]
        x = path.alpha(t) * x0 + path.sigma(t) * self.noise
        self._rows.append(Row(x, self._guidance.begin(self._run)))
        return self._tick()

    def flush(self) -> Iterator[Array]:
        """Go on without new frames until the last one has left."""
        while self._rows:
            out = self._tick()
            if out is not None:
                yield out

    def _tick(self) -> Array | None:
        self._run.call += 1
        guides = [row.guide(row.x, self.times[row.level]) for row in self._rows]
        for row, p in zip(self._rows, drive(guides, self._answer), strict=True):
            if not all_finite(p.raw):
                raise ModelError(
                    f"the network gave NaN or infinity at t = {p.t:.3f}",
                    "use --dtype float32, or check the model's weights",
                )
            row.level += 1
            row.x = transfer(p, self.times[row.level])
        if self._rows[0].level < len(self.times) - 1:
            return None
        return self._rows.pop(0).x

    def _answer(self, questions: list[tuple[int, Any]]) -> list[tuple[Prediction, ...]]:
        """Predictions for the branches that each row asked for, in as few calls as shapes allow."""
        asked = [(self._rows[n], branch) for n, branches in questions for branch in branches]
        groups: dict[Any, list[int]] = {}
        for place, (_, branch) in enumerate(asked):
            if branch.perturb is not None:
                raise UnsupportedError(
                    f"--stream: --guidance {self._guidance.info.name} changes the network for one of its branches",
                    "use cfg, residual-cfg or none",
                )
            groups.setdefault(self._shapes(branch), []).append(place)
        found: list[Any] = [None] * len(asked)
        for places in groups.values():
            made = self._call([asked[place] for place in places])
            for place, prediction in zip(places, made, strict=True):
                found[place] = prediction
        rest = iter(found)
        return [tuple(next(rest) for _ in branches) for _, branches in questions]

    def _shapes(self, branch: Any) -> Any:
        """What branches that share a call have in common."""
        condition = self._conditions[branch.condition or branch.name]
        if not self._model.family.batch_branches:
            return branch.name
        return tuple((key, getattr(value, "shape", None)) for key, value in condition.items())

    def _call(self, asked: Sequence[tuple[Row, Any]]) -> list[Prediction]:
        family, conditions = self._model.family, self._conditions
        times = [self.times[row.level] for row, _ in asked]
        inputs = [
            family.inputs(row.x, t, conditions[branch.condition or branch.name])
            for (row, branch), t in zip(asked, times, strict=True)
        ]
        self.calls += 1
        self.rows += len(asked)
        self._run.branches = tuple(branch.name for _, branch in asked)
        output = self._network(**join_inputs(inputs))
        return [
            family.read(output[i : i + 1], row.x, t) for i, ((row, _), t) in enumerate(zip(asked, times, strict=True))
        ]


def join_inputs(parts: Sequence[Any]) -> Any:
    """Inputs of single images as those of a batch, each row with a time of its own.

    Arrays of one row are stacked, lists put together; what has no row per image, such as Flux's
    positions, is the same for all.
    """
    first = parts[0]
    if isinstance(first, dict):
        return {key: join_inputs([part[key] for part in parts]) for key in first}
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if getattr(first, "shape", None) and first.shape[0] == 1:
        return concat(parts)
    return first
