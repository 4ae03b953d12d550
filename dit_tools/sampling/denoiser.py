"""From latents to a guided prediction: branches become batched network calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array, all_finite, concat, split, to_precision
from dit_tools.core.branches import Branch
from dit_tools.core.errors import ModelError
from dit_tools.core.paths import Path
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import Guide, Guiding
from dit_tools.methods.token_reduction import Watch

Condition = Mapping[str, Array]
"""What the network is told besides latents and time: arrays whose first axis is the batch."""
Conditions = Mapping[str, Condition]
"""Branch name -> Condition."""
Asked = tuple[Branch, ...]
Answers = tuple[Prediction, ...]


def drive(
    guides: Sequence[Guiding], answer: Callable[[list[tuple[int, Asked]]], Sequence[Answers]]
) -> list[Prediction]:
    """Run guided evaluations in lock-step; what all of them ask at a time is answered together.

    ``answer`` gets (number of the guide, branches) of every guide that has not finished, in order,
    and gives the predictions of each. Returns the guided predictions.
    """
    made: list[Prediction | None] = [None] * len(guides)
    replies: list[tuple[int, Answers | None]] = [(number, None) for number in range(len(guides))]
    while replies:
        asked: list[tuple[int, Asked]] = []
        for number, reply in replies:
            try:
                asked.append((number, guides[number].send(reply)))  # type: ignore[arg-type]  # None starts it
            except StopIteration as done:
                made[number] = done.value
        replies = list(zip((n for n, _ in asked), answer(asked), strict=True)) if asked else []
    return made  # type: ignore[return-value]  # all have finished


class Denoiser:
    """``denoise(x, t) -> Prediction`` of one run: conditions, guidance and the network together.

    ``network`` is called as ``network(**inputs)``; ``family`` makes the inputs and reads the
    output. Branches whose conditions have equal shapes go through the network in one batch.
    ``watch`` is that of ``--tokens``: it fills in what the network left out.
    ``listen(branches, predictions)`` is told what the network said before guidance joins it.
    ``asker`` is the denoiser's number among those that take turns on the network; calls are counted
    for each, beginning at the step of the run's times at which it is first asked.

    ``to_precision``: predictions get the precision of the latents. A network answers in float32. A
    float32 output times a number, added to latents in float64, often lands just between two float32
    numbers, where the next call's rounding decides by the last bit of float64: exact inversion
    would be lost to 1e-7.
    """

    def __init__(
        self,
        family: Any,
        network: Any,
        conditions: Conditions,
        guide: Guide,
        run: RunState,
        watch: Watch | None = None,
        asker: int = 0,
        precise: bool = False,
    ):
        self._family, self._network = family, network
        self._conditions, self._guide, self._run = conditions, guide, run
        self._joined: dict[tuple[str, ...], Condition] = {}
        self._watch = watch or Watch()
        self._asker, self._precise = asker, precise
        self._calls: int | None = None  # guided evaluations so far
        self.listen: Callable[[tuple[Any, ...], tuple[Prediction, ...]], None] | None = None

    def __call__(self, x: Array, t: float) -> Prediction:
        """The guided prediction. Raises ModelError when the network gives NaN or infinity."""
        self._turn(x, t)
        (guided,) = drive([self._guide(x, t)], lambda asked: [self._evaluate(asked[0][1], x, t)])
        guided = self._watch.guided(guided)
        _check_finite(t, guided.raw)
        if self._precise:
            return guided.with_raw(to_precision(guided.raw, str(x.dtype).removeprefix("torch.")))
        return guided

    def ask(self, branches: Sequence[Any], x: Array, t: float) -> tuple[Prediction, ...]:
        """The predictions of branches, without guidance. Counts as one evaluation."""
        self._turn(x, t)
        found = self._evaluate(tuple(branches), x, t)
        _check_finite(t, *(p.raw for p in found))
        return found

    def _turn(self, x: Array, t: float) -> None:
        """The run's state is that of this denoiser's next call."""
        run = self._run
        if self._calls is None:
            # an edit may begin anywhere in the run's times; a sampling run begins at the first
            self._calls = next((i for i, s in enumerate(run.times) if s <= t + 1e-9), 0) if self._precise else 0
        else:
            self._calls += 1
        run.asker, run.call, run.t, run.x = self._asker, self._calls, t, x

    @property
    def path(self) -> Path:
        """The model's noise path."""
        return self._family.facts.path

    @property
    def conditions(self) -> Conditions:
        """Branch name -> what the network is told."""
        return self._conditions

    def branch(self, name: str, x: Array, t: float, condition: Condition | None = None):
        """What one branch says by itself; ``condition`` stands in for its own."""
        self._run.asker, self._run.t, self._run.x = self._asker, t, x
        condition = self._conditions[name] if condition is None else condition
        return self._family.read(self._call((name,), x, t, condition), x, t)

    def join(self, made: Mapping[str, Prediction], x: Array, t: float) -> Prediction:
        """Guidance over predictions that are there already, by branch name."""
        (guided,) = drive([self._guide(x, t)], lambda asked: [tuple(made[b.name] for b in asked[0][1])])
        return guided

    def _evaluate(self, branches: tuple[Any, ...], x: Array, t: float) -> tuple[Prediction, ...]:
        plain = tuple(branch.name for branch in branches if branch.perturb is None)
        outputs = dict(zip(plain, self._together(plain, x, t), strict=True)) if plain else {}
        for branch in branches:
            if branch.perturb is not None:
                condition = self._conditions[branch.condition or branch.name]
                with branch.perturb(self._network.blocks()):
                    outputs[branch.name] = self._call((branch.name,), x, t, condition)
        made = tuple(self._read(branch.name, outputs[branch.name], x, t) for branch in branches)
        if self.listen:
            self.listen(branches, made)
        return made

    def _read(self, name: str, output: Array, x: Array, t: float) -> Prediction:
        return self._watch.branch(name, self._family.read(output, x, t))

    def _together(self, names: tuple[str, ...], x: Array, t: float) -> list[Array]:
        """Raw outputs of unperturbed branches, in one network call where shapes allow."""
        if len(names) == 1 or not self._stackable(names):
            return [self._call((name,), x, t, self._conditions[name]) for name in names]
        if names not in self._joined:  # once a run: a network may keep what it makes of them
            self._joined[names] = {
                key: concat([self._conditions[name][key] for name in names]) for key in self._conditions[names[0]]
            }
        out = self._call(names, concat([x] * len(names)), t, self._joined[names])
        return split(out, len(names))

    def _stackable(self, names: tuple[str, ...]) -> bool:
        first, *others = (self._conditions[name] for name in names)
        return self._family.batch_branches and all(
            first.keys() == other.keys() and all(first[key].shape == other[key].shape for key in first)
            for other in others
        )

    def _call(self, names: tuple[str, ...], x: Array, t: float, condition: Condition) -> Array:
        self._run.branches = names
        self._run.count["network calls"] += 1
        return self._network(**self._family.inputs(x, t, condition))


def _check_finite(t: float, *outputs: Array) -> None:
    if not all(all_finite(output) for output in outputs):
        raise ModelError(
            f"the network gave NaN or infinity at t = {t:.3f}", "use --dtype float32, or check the model's weights"
        )
