"""The run of ``dit edit``: images and instructions in, edited images out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import DitError, InputError, UnsupportedError, UsageError
from dit_tools.jobs import items as job_items
from dit_tools.jobs.events import Listener
from dit_tools.jobs.expand import Job, seeds
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result
from dit_tools.jobs.manifest import file_hash
from dit_tools.jobs.models import KnownModel, Load, check_needs, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.prompts import PromptItem, read_prompts
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import GeneratedImage
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings
from dit_tools.media import crop as frames
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.media.profile import as_colour
from dit_tools.methods.editing import Editing
from dit_tools.methods.seed_search import SeedSearch
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.edit import inversion_source, paste_back, region, report
from dit_tools.tasks.edit import mask as masks
from dit_tools.tasks.edit.run_edit import Part, Task, edit_latents

COLUMNS = ("picture", "source_prompt", "mask", "mask_text", "outpaint", "seed", "strength", "negative_prompt")
"""What a line of ``--instructions`` may say besides its prompt."""


@dataclass
class Request:
    """The command line of ``dit edit``; ``values`` holds the options of an image.

    ``method`` None chooses inpaint with a mask, else flowedit, and editing by inversion with a
    latent file as ``inversion`` or a ``source_model``. ``feather`` None is one pixel per 64 of the
    shorter side.
    """

    picture: str
    prompt: str | None = None
    source_prompt: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    instructions: str | None = None
    method: str | None = None
    inversion: str | None = None
    strength: float | None = None
    mask: str | None = None
    feather: int | None = None
    crop: bool = True
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    metadata: bool = True
    quiet: bool = False
    references: Sequence[str] = ()
    steer: str | None = None
    protect: str | None = None
    mask_text: str | None = None
    outpaint: str | None = None
    source_model: str | None = None
    keep_detail: bool = True


def plan_edit(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    source = inversion_source.read_source(request.inversion, request.source_model)
    settings = inversion_source.source_settings(source, read_values(request.values))
    if source.latent is not None and request.strength is not None:
        raise UsageError(f"--strength: --inversion {source.file} has decided that", "leave it out")
    request = replace(request, source_prompt=inversion_source.prompt(source, request.source_prompt))
    tasks = _tasks(request, settings)
    for task in tasks:
        _check(task, source)
    many = several([request.picture], [Path(path) for path in {task.path for task in tasks}])
    outputs = Outputs(request.output, _template(tasks), request.overwrite, request.skip_existing, resume=many)
    outputs.single(len(tasks))
    known = look_up(settings)
    known.check_size(settings)
    inversion_source.check_model(source, known)
    _check_plans(tasks, source, known)
    common = _identity(request, source, known)
    items = [_item(index, task, outputs, common) for index, task in enumerate(tasks)]
    return Runner(items, EditImages(request, source, load), outputs, listen, quiet=request.quiet)


def _check_plans(tasks: Sequence[Task], source: inversion_source.Source, known: KnownModel) -> None:
    """Raise UsageError for methods of sampling that an edit cannot use."""
    for method, settings in dict.fromkeys((task.method, task.settings) for task in tasks):
        plan = settings.check(known.defaults, known.guidance, by=f"--method {method.info.name}")
        if method.inverts:
            source.inversion.compose(plan)
        method.compose(plan)


def _identity(request: Request, source: inversion_source.Source, known: KnownModel) -> dict[str, Any]:
    """What decides the outputs of a run, the same for all of them."""
    made = {
        "command": "edit",
        "model": known.name,
        "revision": known.revision,
        "inversion": spec.format(source.inversion),
        "source_model": source.model,
        "latent": source.latent and file_hash(source.file),
        "feather": request.feather,
        "crop": request.crop,
        "keep_detail": request.keep_detail,
    }
    return made if request.metadata else {**made, "metadata": False}


def _item(index: int, task: Task, outputs: Outputs, common: Mapping[str, Any]) -> Item:
    settings, path = task.settings, Path(task.path)
    suffix = image.suffix(settings.format) if settings.format else image_suffix(task.path)
    kind = settings.format or image.format_of(outputs.template(suffix))
    files = [task.path, *task.references, *([task.mask] if task.mask and os.path.isfile(task.mask) else [])]
    own = {name: getattr(task, name) for name in ("prompt", "source_prompt", "seed", "mask_text", "outpaint")}
    identity = {
        **settings.pixel_options(),
        **common,
        **own,
        "source": path.name,
        "mask": Path(task.mask).name if task.mask else None,
        "method": spec.format(task.method),
        "steer": spec.format(task.steer) if task.steer else None,
        "format": kind,
    }
    return Item(
        index,
        task.path,
        (task, kind),
        suffix,
        {"stem": path.stem, "index": index + 1, "seed": task.seed, "prompt": task.prompt},
        identity,
        tuple(files),
        {"source": task.path},
    )


def _check(task: Task, source: inversion_source.Source) -> None:
    region.check_region(task)
    if source.asked and task.method.info.name != "inversion":
        flag = f"--inversion {source.file}" if source.latent else "--source-model"
        raise UsageError(f"{flag}: --method {task.method.info.name} does not invert", "use --method inversion")


def _template(tasks: Sequence[Task]) -> str:
    several = len({task.seed for task in tasks}) > 1
    return "{stem}-edit-{seed}" if several else "{stem}-edit"


def image_suffix(path: str) -> str:
    """The input's own format where it can be written, else png."""
    suffix = Path(path).suffix.lower()
    known = any(suffix in suffixes for suffixes in image.FORMATS.values())
    return suffix if known else ".png"


def _tasks(request: Request, settings: Settings) -> list[Task]:
    if request.instructions is None:
        prompt = request.prompt if request.prompt is not None else _unsaid(request)
        return [
            task
            for path in expand_inputs([request.picture])
            for task in _of(request, settings, str(path), prompt, _given(request))
        ]
    if request.prompt is not None:
        raise UsageError("--instructions and a prompt exclude each other", "give one of them")
    made: list[Task] = []
    for item in read_prompts(request.instructions, options=COLUMNS):
        where = f"{item.source}:{item.line}"
        try:
            made += _of(request, settings, *_line(request, item))
        except DitError as error:
            message = error.message.removeprefix(f"{where}: ")
            raise InputError(f"{where}: {message}", error.hint) from None
    return made


def _unsaid(request: Request) -> str:
    """The prompt where none is given: the source's, for methods that need no other."""
    if request.method is None or spec.parse("editing", request.method).needs_prompt:
        raise UsageError("no prompt", 'say what to show: dit edit photo.png "a green apple"')
    return request.source_prompt


def _line(request: Request, item: PromptItem) -> tuple[str, str, dict[str, Any]]:
    """Path, prompt and options of one line; files are looked for next to the images."""
    folder = Path(request.picture)
    line = dict(item.options)
    name = line.pop("picture", None)
    if folder.is_dir():
        if not isinstance(name, str) or not name:
            raise InputError("names no image", 'add "image", a file in the folder')
        path = folder / name
    else:
        path = folder if name is None else folder.parent / str(name)
    (found,) = expand_inputs([str(path)]) if not path.is_dir() else (path,)
    mask = line.get("mask")
    if isinstance(mask, str) and not Path(mask).is_absolute() and "," not in mask:
        line["mask"] = str(path.parent / mask)
    line = {k: v for k, v in line.items() if v is not None}
    return str(found), item.prompt, _given(request) | line


def _given(request: Request) -> dict[str, Any]:
    """What the command line says in place of a line's silence."""
    names = ("source_prompt", "mask", "mask_text", "outpaint")
    return {name: getattr(request, name) for name in names}


def _of(request: Request, settings: Settings, path: str, prompt: str, line: Mapping[str, Any]) -> list[Task]:
    own = {name: line[name] for name in ("seed", "negative_prompt") if name in line}
    settings = replace(settings, **{k: v for k, v in read_values(own).items()})
    source = str(line.get("source_prompt") or "")
    area = {name: str(line[name]) for name in ("mask", "mask_text", "outpaint") if line.get(name) is not None}
    for text, flag in ((prompt, "--prompt"), (source, "--source-prompt")):
        check_prompt(text, flag)
    strength = line.get("strength", request.strength)
    chosen = _chosen(request, bool(area))
    method = _followed(_method(chosen, strength), chosen, read_values(request.values))
    if method.needs_mask and not area:
        raise UsageError(f"--method {method.info.name}: needs --mask", "or use --method flowedit")
    references, steer = _references(request, method), _steering(request, method)
    return [
        Task(
            path,
            prompt,
            source,
            area.get("mask"),
            method,
            settings,
            seed,
            references,
            steer,
            area.get("mask_text"),
            area.get("outpaint"),
        )
        for seed in seeds(settings)
    ]


def _steering(request: Request, method: Editing) -> SeedSearch | None:
    """The method of ``--steer``. Raises UsageError where it cannot be asked for."""
    if request.steer is None:
        return None
    steer = spec.parse("seed_search", request.steer)
    where = f"--steer {steer.info.name}"
    if "gradients" in method.info.needs:
        raise UsageError(f"{where}: --method {method.info.name} cannot be stopped midway", "choose another method")
    return steer


def _references(request: Request, method: Editing) -> tuple[str, ...]:
    """The files of ``--reference``, as many as the method takes. Raises UsageError."""
    found = tuple(map(str, expand_inputs(request.references)))
    least, most = method.references
    if not least <= len(found) <= most:
        wanted = str(most) if least == most else f"{least} to {most}"
        raise UsageError(
            f"--method {method.info.name}: takes {wanted if most else 'no'} --reference, not {len(found)}",
            "see --method help",
        )
    return found


def _chosen(request: Request, masked: bool) -> str:
    """The method that is asked for, or that fits what is given."""
    if request.method:
        return request.method
    if request.source_model or (request.inversion and inversion_source.is_file(request.inversion)):
        return "inversion"
    return "inpaint" if masked else "flowedit"


def _method(text: str, strength: Any) -> Editing:
    """The method, with ``--strength`` as its parameter of that name."""
    method = spec.parse("editing", text)
    if strength is None:
        return method
    where = f"--strength {strength}"
    if "strength" not in {f.name for f in fields(method)}:
        raise UsageError(f"{where}: --method {method.info.name} has none", "leave it out")
    if "strength=" in text.replace(" ", ""):
        raise UsageError(f"{where}: --method {text} gives it too", "give one of them")
    try:
        value = float(strength)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{where}: out of range", "give 0..1")
    return replace(method, strength=value)


def _followed(method: Any, text: str, given: Mapping[str, Any]) -> Editing:
    """The method, with ``--cfg-scale`` as its own scale. Raises UsageError for options without effect."""
    flag, name = f"--method {method.info.name}", method.guidance_scale
    if "solver" in given and not method.solves:
        raise UsageError(f"--solver {given['solver']}: {flag} makes its own steps", "leave it out")
    if name is None:
        return method
    if "guidance" in given:
        hint = f"use --cfg-scale, which sets its {name}"
        raise UsageError(f"--guidance {given['guidance']}: {flag} guides by its own scale", hint)
    if "cfg_scale" not in given:
        return method
    if any(pair.partition("=")[0].strip() == name for pair in text.partition(":")[2].split(",")):
        raise UsageError(f"--cfg-scale {given['cfg_scale']:g}: --method {text} gives it too", "give one of them")
    return replace(method, **{name: given["cfg_scale"]})


@dataclass
class EditImages(job_items.Task):
    """Edits images one by one."""

    request: Request
    source: inversion_source.Source
    load: Load | None
    model: Any = None
    origin: Any = None
    command = "edit"
    unsent = ("model", "origin")

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``jobs.items.Task``."""
        return [self._one(*item.data) for item in items]

    def _one(self, task: Task, kind: str) -> Result:
        began, notes = time.perf_counter(), []
        picture = image.read(task.path)
        notes += [picture.note] if picture.note else []
        session = self._session(task)
        inversion_source.check_image(self.source, session, picture, task.path)
        picture, mask = region.region_of(task, session, picture, notes)
        size = picture.pixels.shape[:2]
        changed = None if mask is None else task.method.region(mask)
        pixels, same, seed = self._edited(session, task, picture, mask, changed, notes)
        task = replace(task, seed=seed)
        seconds = time.perf_counter() - began
        record = self._record(session, task, seconds)
        content = encoded(picture, pixels, kind, task.settings, notes, record if self.request.metadata else None)
        facts = {
            "prompt": task.prompt,
            "seed": task.seed,
            "width": size[1],
            "height": size[0],
            "method": spec.format(task.method),
            "calls": session.calls,
            "seconds": round(seconds, 3),
            "unchanged": same,
            "note": "; ".join(notes) or None,
            **report.report(picture.pixels, pixels, changed if changed is None or changed.any() else None),
            "record": record,
        }
        return Result(content, facts)

    def _session(self, task: Task) -> Sampler:
        """The model's, for one edit; with that of ``--source-model`` as ``origin_latents``."""
        uses = task.method.inverts and self.source.latent is None
        needs = task.needs | (self.source.inversion.info.needs if uses else frozenset())
        if self.model is None:
            self.model = load_model(task.settings, needs, self.load)
        for method in (task.method, *([self.source.inversion] if uses else [])):
            check_needs(self.model, method)
        if not needs <= self.model.network.offers:
            raise UnsupportedError("--mask-text: needs the network's blocks", "use --backend torch")
        session = open_sampler(self.model, replace(task.settings, seed=str(task.seed)))
        if self.origin is None:
            self.origin = inversion_source.origin_latents(self.source, session, task.settings, self.load)
        elif self.origin is not None:
            self.origin.state = session.state
        return session

    def _edited(
        self, session: Sampler, task: Task, picture: Picture, mask: Any, region: Any, notes: list[str]
    ) -> tuple[Any, bool, int]:
        """The edited image (H, W, C), whether it is the image itself, and its seed."""
        size = picture.pixels.shape[:2]
        if mask is not None and not mask.any():
            notes.append("mask is empty: nothing may change")
            return picture.pixels, True, task.seed
        frame = frames.whole_image(size, session.size)
        if region is not None and self.request.crop and self.source.latent is None:
            frame = frames.crop_around(masks.bounds(region), size, session.size)
        part = Part(session, picture, mask, region, frame, self.source.latent, self.origin)
        found = edit_latents(part, task, self.source.inversion)
        if found.latents is None:
            return picture.pixels, True, found.seed
        feather = self.request.feather
        feather = max(min(size) // 64, 1) if feather is None else feather
        weights = None if region is None else masks.weights(region, feather)
        decode = session.model.codec.decode
        edited = decode(found.latents)[0]
        plain = decode(found.x0)[0] if self.request.keep_detail else None
        return paste_back.compose(picture, edited, frame, weights, plain), False, found.seed

    def _record(self, session: Sampler, task: Task, seconds: float) -> dict[str, Any]:
        pixels: Any = None
        job = Job(0, task.prompt, task.seed, task.settings)
        drawn = GeneratedImage(job, pixels, session.plan, *session.size, seconds)
        uses, request = task.method.inverts, self.request
        extra = {
            "command": "edit",
            "method": spec.format(task.method),
            **_unused(task.method),
            "inversion": spec.format(self.source.inversion) if uses else None,
            "source_model": self.source.model and self.origin.model.name,
            "latent": Path(self.source.file).name if self.source.latent else None,
            "source": Path(task.path).name,
            "source_prompt": task.source_prompt,
            "mask": Path(task.mask).name if task.mask else None,
            "mask_text": task.mask_text,
            "outpaint": task.outpaint,
            "references": [Path(path).name for path in task.references] or None,
            "steer": spec.format(task.steer) if task.steer else None,
            "feather": request.feather,
            "no_crop": not request.crop,
            "no_keep_detail": not request.keep_detail,
        }
        return make_record(drawn, session.model, extra)


def _unused(method: Editing) -> dict[str, None]:
    """Parts of a record that the method had no use for: it guides and steps by itself."""
    names = ([] if method.solves else ["solver"]) + ([] if method.guidance_scale is None else ["guidance", "cfg_scale"])
    return dict.fromkeys(names)


def encoded(
    picture: Picture, pixels: Any, kind: str, settings: Settings, notes: list[str], record: dict[str, Any] | None = None
) -> bytes:
    """The file in the format ``kind``, with what belongs to the photograph kept as far as it holds that."""
    bits = 16 if picture.bits > 8 and kind in image.DEEP else 8
    if picture.bits > bits:
        notes.append(f"{picture.bits} bits a sample become {bits}")
    coloured = pixels.shape[2] != picture.pixels.shape[2]
    if coloured:
        notes.append("the grey image became a colour image")
    background = image.WHITE if kind == "jpeg" and pixels.shape[2] == 4 else None
    if background:
        notes.append("jpeg holds no transparency: put on white")
    return image.encode(
        pixels,
        kind,
        bits=bits,
        quality=settings.quality,
        background=background,
        record=record,
        origin="composite",
        icc=as_colour(picture.icc) if coloured and picture.icc else picture.icc,
        exif=picture.exif,
    )
