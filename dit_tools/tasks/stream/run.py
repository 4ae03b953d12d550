"""The run of ``dit generate --stream``: frames in, frames out, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import InputError, UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.jobs.events import Listener
from dit_tools.jobs.expand import Job, seeds
from dit_tools.jobs.image_outputs import check_transparency, output_format
from dit_tools.jobs.inputs import expand_inputs
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.manifest import file_hash
from dit_tools.jobs.models import KnownModel, Load, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import GeneratedImage, layers
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import animation, frames, image
from dit_tools.media.crop import to_model, whole_image
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.generate.sample_batch import prompts_of
from dit_tools.tasks.stream.batch import StreamBatch
from dit_tools.tasks.stream.similarity import Similarity

if TYPE_CHECKING:
    import numpy as np

SOLVERS = ("euler", "ddim")
VIDEO_SUFFIXES = (".mp4", ".gif")
"""Suffixes of ``-o`` that mean one video."""


@dataclass
class Request:
    """The command line of ``dit generate --stream``; ``values`` holds the options of an image.

    ``strength``: share of the steps that a frame goes through; the steps that remain are the levels
    of the stream batch. ``similarity``, ``longest``: see ``similarity.Similarity``.
    """

    source: str
    prompts: Sequence[str]
    values: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 0.6
    similarity: float = 0.98
    longest: int = 10
    output: str | None = None
    overwrite: bool = False
    fps: float = 10.0
    metadata: bool = True
    quiet: bool = False


def plan_stream(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    settings = merge_settings([read_values(request.values)])
    if len(request.prompts) != 1:
        raise UsageError("--stream: takes one prompt", 'for example dit generate "a cat" --stream -')
    check_prompt(request.prompts[0], "--prompt")
    for word in ("strength", "similarity"):
        value = getattr(request, word)
        if not 0 < value <= 1:
            raise UsageError(f"--{word} {value:g}: out of range", "give above 0, at most 1")
    listed = seeds(settings)
    if len(listed) != 1:
        raise UsageError("--stream: every frame has the same noise", "give one seed")
    settings = _plain(settings)
    known = look_up(settings)
    known.check_size(settings)
    _check_plan(settings.check(known.defaults, known.guidance, by="--stream"))
    kind = _output_kind(request, settings)
    identity = {} if request.source == "-" else _identity(request, settings, known, kind)
    task = VideoRun(request, settings, listed[0], kind, identity, load)
    outputs = Outputs(request.output, "{index:05d}", request.overwrite, resume=True)
    told = {"prompt": request.prompts[0], "seed": listed[0]}
    video = [] if film_of(request) is None else [Item(0, request.source, told=told)]
    return Runner(video, task, outputs, listen, quiet=request.quiet)


def _identity(request: Request, settings: Settings, known: KnownModel, kind: str) -> dict[str, Any]:
    """What decides the images besides the frames."""
    return {
        **settings.pixel_options(),
        "command": "generate --stream",
        "model": known.name,
        "revision": known.revision,
        "prompt": request.prompts[0],
        "seed": settings.seed,
        "strength": request.strength,
        "similarity": request.similarity,
        "longest": request.longest,
        "source": Path(request.source).name,
        "format": kind,
    }


def _check_plan(plan: Plan) -> None:
    """Raise UsageError for methods that follow one image through its run, which a stream batch has not."""
    for option in plan.remembering():
        raise UsageError(
            f"{option}: it remembers one image from call to call, and a call of --stream holds frames at several times",
            "leave it out; --dtype int8 and --attention msw:shift=false work",
        )
    if plan.highres.timed:
        raise UsageError(
            f"--highres {plan.highres.info.name}: it changes with time, and a call of --stream has several times",
            "use --highres ntk or yarn",
        )


def _plain(settings: Settings) -> Settings:
    """The settings with a solver of one step, where none is given."""
    if settings.solver is None:
        return replace(settings, solver=SOLVERS[0])
    if settings.solver not in SOLVERS:
        raise UsageError(f"--solver {settings.solver}: has no place in --stream", "use euler")
    return settings


@dataclass
class VideoRun(Task):
    """Redraws frames in order; ``skipped`` frames got the image of the frame before."""

    request: Request
    settings: Settings
    seed: int
    kind: str  # format of the images
    identity: Mapping[str, Any]
    load: Load | None = None
    frames: int = 0
    skipped_frames: int = 0
    calls: int = 0
    command = "generate"

    @property
    def input_name(self) -> str:
        """See ``Task``."""
        return self.request.source

    def flow(self) -> Iterator[tuple[Item, Result]] | None:
        """See ``Task``: an image for every frame; None for a video, which is one item."""
        return None if film_of(self.request) is not None else self._pictures()

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``: the video, whose frames are drawn while it is written."""
        return [Result(self._write_film) for _ in items]

    def summary(self) -> str:
        """See ``Task``."""
        return f"{self.frames} frames, {self.skipped_frames} of them skipped, {self.calls} network calls"

    def _pictures(self) -> Iterator[tuple[Item, Result]]:
        # What a frame becomes depends on those before it, so a run that goes on draws them all
        # again, and writes what is missing.
        known = self.identity and {**self.identity, "frames": frames_hash(self.request.source)}
        prompt, suffix = self.request.prompts[0], image.suffix(self.kind)
        told = {"prompt": prompt, "seed": self.seed}
        for index, drawn in enumerate(self._drawn()):
            record = self._record(drawn)
            content = image.encode(
                layers(drawn, self._session.model.alpha),
                self.kind,
                quality=self.settings.quality,
                record=record if self.request.metadata else None,
            )
            identity = {**known, "index": index} if known else {}
            item = Item(index, "", None, suffix, {**told, "index": index + 1}, identity, told=told)
            yield item, Result(content, {"width": drawn.width, "height": drawn.height, "record": record})

    def _write_film(self, path: Path) -> None:
        def images() -> Iterator[np.ndarray]:
            for drawn in self._drawn():
                yield layers(drawn, self._session.model.alpha)

        animation.write_animation(path, images(), self.request.fps, hold=0, name=self.request.output)

    def _record(self, drawn: GeneratedImage) -> dict[str, Any]:
        extra = {"command": "stream", "source": Path(self.request.source).name, "strength": self.request.strength}
        return make_record(drawn, self._session.model, extra)

    # frames -----------------------------------------------------------------------------------

    def _source(self) -> Iterator[np.ndarray]:
        """Frames (H, W, C) in [0, 1]."""
        if self.request.source == "-":
            yield from frames.read_pipe()
            return
        for path in files_of(self.request.source):
            if frames.is_video(path):
                yield from frames.read_video(path)
            else:
                yield from frames.of_images(path)

    def _drawn(self) -> Iterator[GeneratedImage]:
        """An image for every frame, in order; frames that were left out repeat the one before."""
        model = load_model(self.settings, load=self.load)
        self._session = session = open_sampler(model, self.settings)
        with session.attached() as network:
            yield from self._streamed(session, self._batch(session, network))

    def _streamed(self, session: Sampler, batch: StreamBatch) -> Iterator[GeneratedImage]:
        model = session.model
        similar = Similarity(self.request.similarity, self.request.longest, self.seed)
        waiting: deque[int] = deque()  # images that each frame on its way stands for
        for frame in self._source():
            if self.stopping():
                break
            self.frames += 1
            pixels = to_model(whole_image(frame.shape[:2], session.size).cut(frame), model.alpha)
            if similar.skips(pixels[0]):
                self.skipped_frames += 1
                yield from self._repeat(waiting)
                continue
            waiting.append(1)
            done = batch.push(model.to_array(model.codec.encode(pixels)))
            yield from self._decoded(waiting, () if done is None else (done,))
        yield from self._decoded(waiting, batch.flush())
        self.calls = batch.calls

    def _repeat(self, waiting: deque[int]) -> Iterator[GeneratedImage]:
        """One more image of the latest frame: later, if that is still on its way."""
        if waiting:
            waiting[-1] += 1
        else:
            yield self._last

    def _decoded(self, waiting: deque[int], latents: Iterable[Any]) -> Iterator[GeneratedImage]:
        """The image of latents that have left, as often as frames wait for it."""
        session = self._session
        for x in latents:
            pixels = session.model.codec.decode(x)[0]
            job = Job(0, self.request.prompts[0], self.seed, self.settings)
            self._last = GeneratedImage(job, pixels, session.plan, *session.size, 0.0)
            for _ in range(waiting.popleft()):
                yield self._last

    def _batch(self, session: Sampler, network: Any) -> StreamBatch:
        """The stream batch of the model at hand."""
        model, plan = session.model, session.plan
        if plan.guidance.sees:
            name = plan.guidance.info.name
            raise UnsupportedError(f"--stream: --guidance {name} has no place in it", "use cfg")
        times = session.times()
        count = max(round(self.request.strength * (len(times) - 1)), 1)
        job = Job(0, self.request.prompts[0], self.seed, self.settings)
        conditions = session.conditions(prompts_of([job], plan, *session.size))
        noise = session.noise([self.seed]).fresh()
        return StreamBatch(model, conditions, plan.guidance, times[-count - 1 :], noise, network, session.state)


def film_of(request: Request) -> Path | None:
    """The video that frames are written to, if ``-o`` names one."""
    path = Path(request.output or "")
    return path if path.suffix.lower() in VIDEO_SUFFIXES else None


def files_of(source: str) -> list[Path]:
    """The files of the frames: a video, or images. Raises InputError where there are none."""
    return [Path(source)] if Path(source).is_file() else expand_inputs([source])


def frames_hash(source: str) -> list[str]:
    """SHA-256 of every file of the frames. Raises InputError for one that cannot be read."""
    try:
        return [file_hash(path) for path in files_of(source)]
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}", "check the path") from None


def _output_kind(request: Request, settings: Settings) -> str:
    """The format of the images. Raises UsageError or InputError for a place that cannot be written to."""
    video = film_of(request)
    if video is not None:
        fastest = animation.MAX_FPS[video.suffix.lower()]
        if not 0 < request.fps <= fastest:
            raise UsageError(f"--fps {request.fps:g}: out of range", f"{video.suffix} takes up to {fastest:g}")
        return "png"
    if Outputs(request.output).kind == "file":
        raise UsageError(f"-o {request.output}: one file for many frames", "give a folder/, a .mp4 or .gif, or -")
    kind = output_format(request.output, settings.format)
    check_transparency(settings, kind)
    return kind
