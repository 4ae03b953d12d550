"""``dit quantize`` in order: refuse, calibrate, choose bits, write, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.weights import allocate, calibrate, finetune, probing, resume, run, verdict
from dit_tools.weights.layers import Layers

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trial:
    """How much is sampled: ``prompts`` for the verdict (none: no verdict), ``calibration`` prompts
    for schemes and ``--max-loss``; ``steps`` None is the model's own number.
    """

    prompts: tuple[str, ...] | int = 4
    calibration: int = 4
    steps: int | None = None
    device: str = "auto"
    max_loss: float | None = None


def quantize(
    source: Any, wanted: run.Wanted, trial: Trial, tell: Tell = lambda event: None
) -> dict[str, Any]:
    """Make ``wanted.output`` of the model ``source`` (``models.resolve.Resolved``).

    Returns the facts of ``quantize.json``. Raises as ``run.preflight``, ``run.write``,
    ``calibrate.observe`` and ``allocate.allocate`` do.
    """
    layers = run.preflight(source, wanted)
    asked = run.request(source, wanted, calibration=trial.calibration, steps=trial.steps,
                        max_loss=trial.max_loss)  # fmt: skip
    with resume.workplace(wanted.output, wanted.overwrite, asked) as work:
        before = work.kept()
        full, layers, seen = learn(source, wanted, trial, layers, tell, before)
        if before is None and (seen or trial.max_loss is not None):
            bits = {layer.name: layer.layout.bits for layer in layers.linear if layer.layout}
            work.keep(seen, bits if trial.max_loss is not None else None)
        return run.write(source, wanted, layers, seen, judge(source, full, trial), tell, work)


def learn(
    source: Any, wanted: run.Wanted, trial: Trial, layers: Layers, tell: Tell, before: Any = None
) -> tuple[Any, Layers, Mapping[str, Any]]:
    """The full model where it is needed, the layers with their bits, and what they are fed.

    ``before``: what an interrupted run has learned, ``resume.Work.kept``.
    """
    if trial.max_loss is not None:
        allocate.check(wanted.scheme)
    _check_device(trial.device)
    how = wanted.scheme.calibration
    if how:
        calibrate.check_memory(layers)
    full = None
    if how or trial.max_loss is not None or trial.prompts:
        full = load(source, source.path, trial.device)
        if full.pipeline is not None and (how or trial.max_loss is not None):
            raise UnsupportedError(
                f"--scheme: {source.name} has no adapter, so it cannot be calibrated",
                "use --scheme rtn or fp8 without --max-loss",
            )
    if before is not None:
        seen, bits = before
        return full, allocate.chosen(layers, bits) if bits else layers, seen
    seen: Mapping[str, Any] = {}
    if how and full is not None:
        seen = calibrate.observe(full, layers, how, calibration(full, trial), trial.steps)
    if wanted.scheme.tuning and full is not None:
        prompts = calibration(full, trial)
        seen = finetune.tune(full, layers, seen, prompts, trial.steps, tell)
    if trial.max_loss is not None and full is not None:
        layers = _allocated(full, layers, seen, trial, tell)
    return full, layers, seen


def _check_device(device: str) -> None:
    from dit_tools.models.torch_load import pick_device

    pick_device(device)


def _allocated(full: Any, layers: Layers, seen: Any, trial: Trial, tell: Tell) -> Layers:
    assert trial.max_loss is not None
    prompts = calibration(full, trial)
    return allocate.allocate(full, layers, seen, prompts, trial.steps, trial.max_loss, tell)


def calibration(full: Any, trial: Trial) -> tuple[str, ...]:
    """Other prompts than those of the verdict."""
    judged = trial.prompts if isinstance(trial.prompts, int) else 0
    return probing.default_prompts(full, trial.calibration, skip=judged)


def judge(
    source: Any, full: Any, trial: Trial, dtype: str = "auto"
) -> Callable[[Path], dict[str, Any]]:
    """What measures a finished folder, opened with ``dtype``, against the full model."""

    def measure(folder: Path) -> dict[str, Any]:
        if not trial.prompts or full is None or full.pipeline is not None:
            return {}
        asked = trial.prompts
        prompts = probing.default_prompts(full, asked) if isinstance(asked, int) else asked
        packed = load(source, folder, trial.device, dtype)
        return {"verdict": verdict.compare(full, packed, prompts, trial.steps).to_json()}

    return measure


def load(source: Any, folder: Path, device: str, dtype: str = "auto") -> Any:
    """The model of a folder: graphs in few bits in ONNX Runtime, everything else in PyTorch."""
    from dit_tools.models.load import Wishes, graphs_only

    here = replace(source, path=folder)
    if graphs_only(folder) or dtype == "int8":
        from dit_tools.models.onnx_load import load_onnx

        return load_onnx(here, Wishes(device=device, backend="onnx", dtype=dtype))
    from dit_tools.models.torch_load import load_torch

    return load_torch(here, Wishes(device=device, backend="torch"))
