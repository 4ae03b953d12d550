"""The whole of ``dit calibrate``: a calibration is made, judged on other prompts, and written."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError, UnsupportedError, UsageError
from dit_tools.jobs.atomic import atomic_write, write_error
from dit_tools.models.calibration import CALIBRATION_SUFFIX, Calibration, calibration_folder, key_of, read_calibration
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun


@dataclass(frozen=True)
class CalibrationReport:
    """Images with the cache against those without, on prompts and noise of their own.

    ``psnr`` in dB, mean over images, infinite for equal ones. ``computed`` is the share of
    blocks, modules or calls that was computed; ``spec`` what it was measured with.
    """

    spec: str
    psnr: float
    computed: float


def check_cache(cache: Any) -> None:
    """Raise UsageError for a cache that needs no calibration."""
    from dit_tools.core import registry

    if cache.calibrated_by is None:
        found = [name for name in registry.names("caching") if registry.get("caching", name).calibrated_by is not None]
        raise UsageError(f"--cache {cache.info.name}: nothing to calibrate", f"choose from {', '.join(found)}")


def check_output(output: str | None, overwrite: bool) -> Path | None:
    """The path that was asked for. Raises UsageError for another suffix, InputError if it is."""
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.suffix != CALIBRATION_SUFFIX:
        raise UsageError(f"-o {output}: not a {CALIBRATION_SUFFIX} file", f"name it {path.stem}{CALIBRATION_SUFFIX}")
    if "," in output:
        raise UsageError(f"-o {output}: a comma, which --cache takes for its own", "rename it")
    if path.exists() and not overwrite:
        raise InputError(f"-o {output}: exists", "add --overwrite, or choose another name")
    return path


def calibrate(session: CalibrationRun) -> Calibration:
    """Make the calibration of the plan's cache.

    Raises UnsupportedError when the network lacks what the cache or its training needs, and for
    solvers that keep their own times.
    """
    cache, model = session.plan.cache, session.model
    trained = cache.info.name in ("harmonica", "ilf")
    missing = (cache.needs | ({"gradients"} if trained else set())) - model.network.offers
    if missing or model.pipeline is not None:
        raise UnsupportedError(
            f"--cache {cache.info.name}: {model.name} offers no {', '.join(sorted(missing)) or 'hooks'}",
            "use --backend torch" if missing else "use a model with an adapter",
        )
    module = importlib.import_module(f"dit_tools.tasks.calibrate.{cache.info.name.replace('-', '_')}")
    arrays = module.calibrate(session)
    import numpy as np

    return Calibration(key_of(cache, model, session.plan), {**arrays, "times": np.array(session.times)})


def evaluate_calibration(
    session: CalibrationRun, calibration: Calibration | None, prompts: Sequence[str]
) -> CalibrationReport:
    """Draw ``prompts`` with and without the cache."""
    from dit_tools.core import spec

    fresh = session.with_prompts(prompts, session.seed + 10_000_000)
    plain, _ = fresh.plain()
    cached, run = fresh.cached(_narrowed(calibration))
    return CalibrationReport(spec.format(session.plan.cache), psnr(session, cached, plain), computed(run))


def psnr(session: CalibrationRun, x: Any, reference: Any) -> float:
    """Mean PSNR in dB of decoded latents."""
    from dit_tools.methods.metrics.psnr import Psnr

    images = [session.model.codec.decode(latents) for latents in (x, reference)]
    values = Psnr().of(*(p.clip(0, 1) for p in images))
    return float(values.mean())


def computed(run: Any) -> float:
    """The share of a run's blocks, modules or calls that was computed; 1 where none was counted."""
    done, left = (
        sum(run.count[f"{kind} {what}"] for kind in ("blocks", "modules")) for what in ("computed", "skipped")
    )
    return done / (done + left) if done + left else 1.0


def _narrowed(calibration: Calibration | None) -> Calibration | None:
    """As it will be read from its file: float32."""
    import numpy as np

    if calibration is None:
        return None
    arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in calibration.arrays.items()}
    return Calibration(calibration.key, arrays)


def write_calibration(calibration: Calibration, path: Path | None) -> Path:
    """Write it where it was asked for, or where ``calibration=auto`` finds it; gives the path.

    Raises InputError when that cannot be written.
    """
    path = path or calibration_folder() / (calibration.name + CALIBRATION_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, calibration.encode())
    except OSError as error:
        raise write_error(path, error) from None
    read_calibration(path)
    return path
