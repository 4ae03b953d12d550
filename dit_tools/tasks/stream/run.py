"""The run of ``dit generate --stream``: frames in, frames out, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools import __version__
from dit_tools.core.errors import DitError, UnsupportedError, UsageError
from dit_tools.jobs.atomic import atomic_path
from dit_tools.jobs.events import Listener, Outcome, error_event, event
from dit_tools.jobs.expand import Job, seeds
from dit_tools.jobs.inputs import expand
from dit_tools.jobs.interrupt import Interruptible
from dit_tools.jobs.models import Load, load_model, look_up, open_sampler
from dit_tools.jobs.names import destination
from dit_tools.jobs.options import check_prompt, read_values
from dit_tools.jobs.outputs import check_folder, check_transparency
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import Drawn, layers
from dit_tools.jobs.runner import Places
from dit_tools.jobs.settings import Settings, merge
from dit_tools.media import animation, frames, image
from dit_tools.media.crop import to_model, whole
from dit_tools.sampling.loop import start
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.generate.sample_batch import prompts_of
from dit_tools.tasks.stream.batch import StreamBatch
from dit_tools.tasks.stream.similarity import Similarity

if TYPE_CHECKING:
    import numpy as np

ALONE = {"cache": "none", "attention": "none", "tokens": "none", "highres": "none", "combine": "none"}
"""Methods that follow one picture through its run, which a stream batch has not."""
SOLVERS = ("euler", "ddim")
FILMS = (".mp4", ".gif")
"""Suffixes of ``-o`` that mean one film."""


@dataclass
class Request:
    """The command line of ``dit generate --stream``; ``values`` holds the options of a picture.

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


def assemble(request: Request, listen: Listener, load: Load | None = None) -> Stream:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    settings = merge([read_values(request.values)])
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
    settings.needs()
    look_up(settings).check_size(settings)
    made = Stream(request, settings, listed[0], listen, load)
    made.check_output()
    return made


def _plain(settings: Settings) -> Settings:
    """The settings with a solver of one step, where none is given."""
    for option, value in ALONE.items():
        if getattr(settings, option) != value:
            raise UsageError(f"--{option} {getattr(settings, option)}: has no place in --stream", "leave it out")
    if settings.solver is None:
        return replace(settings, solver=SOLVERS[0])
    if settings.solver not in SOLVERS:
        raise UsageError(f"--solver {settings.solver}: has no place in --stream", "use euler")
    return settings


@dataclass
class Stream:
    """One run; ``start`` does it. ``skipped`` frames got the picture of the frame before."""

    request: Request
    settings: Settings
    seed: int
    listen: Listener
    load: Load | None = None
    outcome: Outcome = field(default_factory=Outcome)
    frames: int = 0
    skipped: int = 0
    calls: int = 0

    @property
    def film(self) -> Path | None:
        """The film that frames are written to, if ``-o`` names one."""
        path = Path(self.request.output or "")
        return path if path.suffix.lower() in FILMS else None

    def check_output(self) -> None:
        """Raise UsageError or InputError for a place that cannot be written to."""
        self._places = Places(self.request.output, "{index:05d}", self.request.overwrite)
        if self.film is not None:
            fastest = animation.FASTEST[self.film.suffix.lower()]
            if not 0 < self.request.fps <= fastest:
                hint = f"{self.film.suffix} takes up to {fastest:g}"
                raise UsageError(f"--fps {self.request.fps:g}: out of range", hint)
            check_folder(self.film, make=False)
            return
        where = destination(self.request.output, "{index:05d}")
        if where.kind == "file":
            raise UsageError(
                f"-o {self.request.output}: one file for many frames", "give a folder/, a .mp4 or .gif, or -"
            )
        name = "-" if where.kind == "stdout" else where.template or "-"
        self._kind = self.settings.format or image.format_of(name)
        check_transparency(self.settings, self._kind)

    def start(self) -> Outcome:
        """Draw every frame. Raises KeyboardInterrupt on the second Ctrl-C."""
        began = time.perf_counter()
        self.listen(event("start", command="generate", version=__version__, items=0, pending=0))
        with Interruptible() as signals:
            self._signals = signals
            try:
                if self.film is not None:
                    self._write_film(self.film)
                else:
                    for drawn in self._drawn():
                        self._write(drawn)
            except DitError as error:
                self.outcome.failed.append((self.request.source, error))
                self.listen(error_event(error, path=self.request.source))
            self.outcome.interrupted = signals.stop_requested
        self.outcome.seconds = time.perf_counter() - began
        self.listen(self.outcome.event())
        return self.outcome

    # frames -----------------------------------------------------------------------------------

    def _source(self) -> Iterator[np.ndarray]:
        """Frames (H, W, C) in [0, 1]."""
        name = self.request.source
        if name == "-":
            yield from frames.of_pipe()
            return
        for path in [Path(name)] if Path(name).is_file() else expand([name]):
            if frames.is_film(path):
                yield from frames.of_film(path)
            else:
                yield image.read(path).pixels

    def _drawn(self) -> Iterator[Drawn]:
        """A picture for every frame, in order; frames that were left out repeat the one before."""
        model = load_model(self.settings, load=self.load)
        self._session = session = open_sampler(model, self.settings)
        batch = self._batch(session)
        similar = Similarity(self.request.similarity, self.request.longest, self.seed)
        waiting: deque[int] = deque()  # pictures that each frame on its way stands for
        for frame in self._source():
            if self._signals.stop_requested:
                break
            self.frames += 1
            pixels = to_model(whole(frame.shape[:2], session.size).cut(frame), model.alpha)
            if similar.skips(pixels[0]):
                self.skipped += 1
                yield from self._repeat(waiting)
                continue
            waiting.append(1)
            done = batch.push(model.to_array(model.codec.encode(pixels)))
            yield from self._decoded(waiting, () if done is None else (done,))
        yield from self._decoded(waiting, batch.flush())
        self.calls = batch.calls

    def _repeat(self, waiting: deque[int]) -> Iterator[Drawn]:
        """One more picture of the latest frame: later, if that is still on its way."""
        if waiting:
            waiting[-1] += 1
        else:
            yield self._last

    def _decoded(self, waiting: deque[int], latents: Iterable[Any]) -> Iterator[Drawn]:
        """The picture of latents that have left, as often as frames wait for it."""
        session = self._session
        for x in latents:
            pixels = session.model.codec.decode(x)[0]
            job = Job(0, self.request.prompts[0], self.seed, self.settings)
            self._last = Drawn(job, pixels, session.plan, *session.size, 0.0)
            for _ in range(waiting.popleft()):
                yield self._last

    def _batch(self, session: Sampler) -> StreamBatch:
        """The stream batch of the model at hand."""
        model, plan = session.model, session.plan
        if plan.guidance.sees:
            name = plan.guidance.info.name
            raise UnsupportedError(f"--stream: --guidance {name} has no place in it", "use cfg")
        times = session.times()
        count = max(round(self.request.strength * (len(times) - 1)), 1)
        job = Job(0, self.request.prompts[0], self.seed, self.settings)
        conditions = model.encode(prompts_of([job], plan, *session.size))
        noise, _ = start(model, plan, session.shape, [self.seed])
        return StreamBatch(model, conditions, plan.guidance, times[-count - 1 :], noise)

    # files ------------------------------------------------------------------------------------

    def _write(self, drawn: Drawn) -> None:
        """One picture, to its file or to stdout."""
        index = len(self.outcome.written) + 1
        values = {"index": index, "seed": drawn.job.seed, "prompt": drawn.job.prompt}
        path = self._places.claim(image.suffix(self._kind), values)
        record = self._record(drawn) if self.request.metadata else None
        content = image.encode(
            layers(drawn, self._session.model.alpha), self._kind, quality=self.settings.quality, record=record
        )
        shown = self._places.deliver(path, content)
        self.outcome.written.append(shown)
        self.listen(
            event(
                "item",
                index=index,
                path=shown,
                prompt=drawn.job.prompt,
                seed=drawn.job.seed,
                width=drawn.width,
                height=drawn.height,
                record=record,
            )
        )

    def _write_film(self, path: Path) -> None:
        def pictures() -> Iterator[np.ndarray]:
            for drawn in self._drawn():
                yield layers(drawn, self._session.model.alpha)

        with atomic_path(path) as part:
            animation.write_animation(part, pictures(), self.request.fps, hold=0)
        self.outcome.files.append(str(path))

    def _record(self, drawn: Drawn) -> dict[str, Any]:
        extra = {"command": "stream", "source": Path(self.request.source).name, "strength": self.request.strength}
        return make_record(drawn, self._session.model, extra)
