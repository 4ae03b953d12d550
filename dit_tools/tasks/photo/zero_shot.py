"""``dit restore --task inpaint|colorize`` with a text-to-image model that nobody trained for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core import spec
from dit_tools.core.arrays import to_numpy_same_dtype, to_precision
from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import IMAGE_SUFFIXES
from dit_tools.jobs.items import Item
from dit_tools.jobs.models import Load, check_needs, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.record import base_name
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import image
from dit_tools.media.crop import CropBox, crop_around, to_model, whole_image
from dit_tools.media.operators import Grey, Keep, Operator
from dit_tools.media.samples import Photo, to_float, to_samples
from dit_tools.methods.restoration import Problem, Restoration
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.edit.mask import bounds, read_mask
from dit_tools.tasks.photo.run import PhotoTask, runner
from dit_tools.tasks.photo.run import Request as CommonRequest

if TYPE_CHECKING:
    import numpy as np

TASKS = ("inpaint", "colorize")
DEFAULT_METHOD = "ddnm"


@dataclass
class Request(CommonRequest):
    """The command line; ``values`` holds the options of a sampling run, model included."""

    task: str = "inpaint"
    method: str = DEFAULT_METHOD
    prompt: str = ""
    mask: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def assemble(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    method = spec.parse("restoration", request.method)
    settings = merge_settings([read_values(request.values)])
    if "model" not in request.values:
        hint = "give one with -m, such as a folder in diffusers format"
        raise UsageError(f"--task {request.task}: needs a text-to-image model", hint)
    check_prompt(request.prompt, "--prompt")
    if "," in settings.seed or ".." in settings.seed or settings.num_images:
        raise UsageError("--seed: a photograph is restored once", "give one seed")
    if (request.task == "inpaint") != (request.mask is not None):
        known = request.task == "inpaint"
        raise UsageError(
            f"--task {request.task}: {'needs' if known else 'takes no'} --mask",
            "white is what is missing" if known else "",
        )
    settings.needs()
    known = look_up(settings)
    known.check_size(settings)
    options = {
        "task": request.task, "method": spec.format(method), "prompt": request.prompt, "seed": int(settings.seed),
        "negative_prompt": settings.negative_prompt or None, "steps": settings.steps, "cfg_scale": settings.cfg_scale,
        "mask": Path(request.mask).name if request.mask else None, "model": base_name(settings.model),
        "model_revision": known.revision,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    return runner(ZeroShot(request, given, settings=settings, method=method, load=load), "restored", listen)


@dataclass
class ZeroShot(PhotoTask):
    """Completes photographs by a text-to-image model, which is loaded with the first one."""

    command = "restore"
    unsent = ("sampler",)
    request: Request
    settings: Settings = field(kw_only=True)
    method: Restoration = field(kw_only=True)
    load: Load | None = field(kw_only=True)
    sampler: Sampler | None = None

    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """The photograph with what was missing, and the facts of its record."""
        notes: list[str] = []
        missing = self._missing(Path(item.source), photo.size, notes)
        if self.sampler is None:
            model = load_model(self.settings, self.method.info.needs, self.load)
            check_needs(model, self.method)
            self.sampler = open_sampler(model, self.settings)
        before = self.sampler.calls
        pixels = to_float(photo.samples)
        colours = pixels[:, :, :3] if pixels.shape[2] > 1 else pixels.repeat(3, axis=2)
        frame = _frame(missing, photo.size, self.sampler.size)
        made, rows, columns = frame.back(self._found(colours, missing, frame))
        grey = photo.samples.shape[2] == 1
        target = photo.samples.repeat(3, axis=2) if grey else photo.samples.copy()
        part = target[rows, columns, :3]
        if missing is None:
            part[:] = to_samples(_coloured(colours[rows, columns], made), photo.bits)
        else:
            inside = missing[rows, columns]
            part[inside] = to_samples(made, photo.bits)[inside]
        facts = {"calls": self.sampler.calls - before, "backend": self.sampler.model.backend}
        if notes:
            facts["note"] = "; ".join(notes)
        icc = None if grey else photo.icc  # a grey profile fits no colours
        return replace(photo, samples=target, icc=icc), facts

    def more_inputs(self, source: Path) -> tuple[str, ...]:
        """The mask's file, where it is one and there is one."""
        try:
            text = self._mask(source)
        except InputError:  # told when the photograph's turn comes
            return ()
        return (text,) if text is not None and Path(text).is_file() else ()

    def _mask(self, source: Path) -> str | None:
        """``--mask`` for a photograph; of a folder of masks the one of its name. Raises InputError."""
        text = self.request.mask
        path = Path(text).expanduser() if text is not None else None
        if path is None or not path.is_dir():
            return text
        for found in sorted(path.iterdir()):
            if found.stem == source.stem and found.suffix.lower() in IMAGE_SUFFIXES:
                return str(found)
        raise InputError(f"--mask {path}: nothing named {source.stem}", "give a file, or another folder")

    def _missing(self, source: Path, size: tuple[int, int], notes: list[str]) -> np.ndarray | None:
        """What the mask marks, bool (H, W); None without one."""
        text = self._mask(source)
        if text is None:
            return None
        mask = read_mask(text, size, notes)
        if not mask.any():
            raise InputError(f"{text}: the mask is black", "white is what is missing")
        return mask

    def _found(self, colours: np.ndarray, missing: np.ndarray | None, frame: CropBox) -> np.ndarray:
        """What the method makes of the frame's part, (h, w, 3) in [0, 1], the measurement kept."""
        import numpy as np

        sampler = self.sampler
        assert sampler is not None
        seen = frame.cut(colours).astype(np.float64).transpose(2, 0, 1)[None] * 2 - 1
        operator = _operator(missing, frame)
        measured = operator.apply(seen)
        alpha = sampler.model.alpha

        def decode(x: Any) -> np.ndarray:
            made = np.asarray(sampler.model.codec.decode(to_precision(x, "float32")), np.float64)
            rgb = image.composite_over(made[0].transpose(1, 2, 0)) if made.shape[1] == 4 else made[0].transpose(1, 2, 0)
            return rgb.transpose(2, 0, 1)[None] * 2 - 1

        def encode(x: np.ndarray) -> Any:
            layers = ((x[0].transpose(1, 2, 0) + 1) / 2).clip(0, 1).astype(np.float32)
            return sampler.encode(to_model(layers, alpha))

        stream = _Stream(sampler.noise(), sampler)
        with sampler.prompted([self.request.prompt]) as denoise:
            problem = Problem(operator, measured, denoise, decode, encode, sampler.model.path, sampler.times(), stream)
            found = operator.consistent(decode(self.method.restore(problem)), measured)
        return ((found[0].transpose(1, 2, 0) + 1) / 2).clip(0, 1).astype(np.float32)


class _Stream:
    """The noise of a run, in the precision of the latents."""

    def __init__(self, stream: Any, sampler: Sampler):
        self._stream, self._sampler = stream, sampler

    def fresh(self) -> Any:
        return to_precision(self._sampler.native(to_numpy_same_dtype(self._stream.fresh())), self._sampler.precision)


def _frame(missing: np.ndarray | None, size: tuple[int, int], model: tuple[int, int]) -> CropBox:
    return whole_image(size, model) if missing is None else crop_around(bounds(missing), size, model)


def _operator(missing: np.ndarray | None, frame: CropBox) -> Operator:
    import numpy as np

    if missing is None:
        return Grey()
    lost = frame.cut(missing.astype(np.float32)[:, :, None])[:, :, 0] > 0
    return Keep((~lost).astype(np.float64)[None, None])


def _coloured(part: np.ndarray, made: np.ndarray) -> np.ndarray:
    """The photograph's own brightness with the colours that were made, (h, w, 3)."""
    return part.mean(axis=2, keepdims=True) + (made - made.mean(axis=2, keepdims=True))
