"""``dit quantize`` in order: refuse, calibrate, choose bits, write, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.tasks.quantize import (
    activation_stats,
    bit_allocation,
    denoising_error,
    finetune,
    layerwise,
    malloc,
    packed_folder,
    quality_report,
    resume,
)
from dit_tools.tasks.quantize.layers import Layers

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class EvalConfig:
    """How much is sampled: ``prompts`` for the verdict (none: no verdict), ``calibration_prompts`` prompts
    for schemes and ``--max-loss``; ``steps`` None is the model's own number.
    """

    prompts: tuple[str, ...] | int = 4
    calibration: int = 4
    steps: int | None = None
    device: str = "auto"
    max_loss: float | None = None


def quantize(
    source: Any, wanted: packed_folder.QuantizeConfig, trial: EvalConfig, tell: Tell = lambda event: None
) -> dict[str, Any]:
    """Make ``wanted.output`` of the model ``source`` (``models.resolve.Resolved``).

    Returns the facts of ``quantize.json``. Raises as ``run.preflight``, ``run.write_folder``,
    ``calibrate.observe`` and ``allocate.allocate`` do.
    """
    layers = packed_folder.preflight(source, wanted)
    if not trial.prompts:  # no verdict: the network may be larger than memory
        malloc.give_back_freed()
    with resume.workplace(wanted.output, wanted.overwrite, request(source, wanted, trial, wanted.target)) as work:
        full, layers, seen = learn_layers(source, wanted, trial, layers, tell, work)
        return packed_folder.write_folder(
            source, wanted, layers, seen, measure_quality(source, full, trial), tell, work
        )


def request(source: Any, wanted: packed_folder.QuantizeConfig, trial: EvalConfig, target: str) -> Any:
    """What decides the bytes that are written: a run with another one starts again.

    Prompts of the verdict are among it, for those of calibration are others.
    """
    return packed_folder.request(source, wanted, target=target, **asdict(trial))


def learn_layers(
    source: Any, wanted: packed_folder.QuantizeConfig, trial: EvalConfig, layers: Layers, tell: Tell, work: resume.Work
) -> tuple[Any, Layers, Mapping[str, Any]]:
    """The full model where it is needed, the layers with their bits, and what they are fed.

    ``work`` may know that from an interrupted run, and knows it afterwards.
    """
    if trial.max_loss is not None:
        bit_allocation.check_scheme(wanted.scheme)
    _check_device(wanted.scheme, trial.device)
    how = wanted.scheme.calibration
    if calibrates_layerwise(wanted.scheme, trial):
        full = _adapted(layerwise.load_layerwise(source, layers), source)
        prompts = calibration_prompts(full, trial)
        return full, layers, layerwise.Streamed(full, layers, how, prompts, trial.steps)
    if how:
        activation_stats.check_memory(layers)
    full = None
    if how or trial.max_loss is not None or trial.prompts:
        full = load_folder(source, source.path, trial.device)
        if how or trial.max_loss is not None:
            _adapted(full, source)
    before = work.kept()
    if before is not None:
        seen, bits = before
        return full, bit_allocation.with_bits(layers, bits) if bits else layers, seen
    if full is None:
        return full, layers, {}
    seen, layers = _learned(full, wanted.scheme, trial, layers, tell)
    if seen or trial.max_loss is not None:
        bits = {layer.name: layer.layout.bits for layer in layers.linear if layer.layout}
        work.keep(seen, bits if trial.max_loss is not None else None)
    return full, layers, seen


def _learned(full: Any, scheme: Any, trial: EvalConfig, layers: Layers, tell: Tell) -> tuple[Mapping[str, Any], Layers]:
    """What layers are fed, with weights that the scheme tuned, and the layers with their bits."""
    seen: Mapping[str, Any] = {}
    prompts = calibration_prompts(full, trial)
    if scheme.calibration:
        seen = activation_stats.observe(full, layers, scheme.calibration, prompts, trial.steps)
    if scheme.tuning:
        seen = finetune.finetune_layers(full, layers, seen, prompts, trial.steps, tell)
    if trial.max_loss is not None:
        layers = bit_allocation.allocate(full, layers, seen, prompts, trial.steps, trial.max_loss, tell)
    return seen, layers


def _adapted(full: Any, source: Any) -> Any:
    """The model; raises UnsupportedError where it runs through a pipeline of diffusers."""
    if full.pipeline is not None:
        raise UnsupportedError(
            f"--scheme: {source.name} has no adapter, so it cannot be calibrated",
            "use --scheme rtn or fp8 without --max-loss",
        )
    return full


def calibrates_layerwise(scheme: Any, trial: EvalConfig) -> bool:
    """Whether calibration can do without the network in memory: where nothing else needs it.

    Fine-tuning, bits by sensitivity and the verdict do, and a GPU has no use for weights on a disk.
    """
    from dit_tools.models.loading.torch_loader import pick_device

    needed = scheme.tuning or trial.max_loss is not None or bool(trial.prompts)
    return bool(scheme.calibration) and not needed and pick_device(trial.device) == "cpu"


def _check_device(scheme: Any, device: str) -> None:
    """Raise UnsupportedError for a device that is not there or cannot run what the scheme packs."""
    from dit_tools.models.loading.torch_loader import pick_device

    kind = pick_device(device).partition(":")[0]
    if kind == "mps" and scheme.layout(64, 64).kind == "fp8":
        raise UnsupportedError(
            f"--scheme {scheme.info.name}: mps has no floating point of eight bits", "use --scheme rtn, or --device cpu"
        )


def calibration_prompts(full: Any, trial: EvalConfig) -> tuple[str, ...]:
    """Other prompts than those of the verdict."""
    judged = trial.prompts if isinstance(trial.prompts, int) else 0
    return denoising_error.default_prompts(full, trial.calibration, skip=judged)


def measure_quality(source: Any, full: Any, trial: EvalConfig, dtype: str = "auto") -> Callable[[Path], dict[str, Any]]:
    """What measures a finished folder, opened with ``dtype``, against the full model."""

    def measure(folder: Path) -> dict[str, Any]:
        if not trial.prompts or full is None or full.pipeline is not None:
            return {}
        asked = trial.prompts
        prompts = denoising_error.default_prompts(full, asked) if isinstance(asked, int) else asked
        packed = load_folder(source, folder, trial.device, dtype)
        return {"verdict": quality_report.compare_networks(full, packed, prompts, trial.steps).to_json()}

    return measure


def load_folder(source: Any, folder: Path, device: str, dtype: str = "auto") -> Any:
    """The model of a folder: graphs in few bits in ONNX Runtime, everything else in PyTorch."""
    from dit_tools.models.loading.load import LoadOptions, graphs_only

    here = replace(source, path=folder)
    if graphs_only(folder) or dtype == "int8":
        from dit_tools.models.loading.onnx_loader import load_onnx

        return load_onnx(here, LoadOptions(device=device, backend="onnx", dtype=dtype))
    from dit_tools.models.loading.torch_loader import load_torch

    return load_torch(here, LoadOptions(device=device, backend="torch"))
