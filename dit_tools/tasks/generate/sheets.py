"""What goes along with images: contact sheets, videos of the denoising, the terminal preview."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import UsageError
from dit_tools.jobs.atomic import atomic_path, atomic_write
from dit_tools.jobs.expand import Job
from dit_tools.jobs.names import Names, destination, unique
from dit_tools.jobs.outputs import Outputs, check_folder
from dit_tools.jobs.sweep import Axis
from dit_tools.media import animation, image, sheet, terminal_preview

if TYPE_CHECKING:
    import numpy as np


def check_sheets(grid: str | None, save_steps: str | None, fps: float) -> None:
    """Raise UsageError or InputError for a sheet or a video that cannot be written."""
    if grid is not None:
        image.format_of(grid)
        check_folder(Path(grid), make=False)
    if save_steps is None:
        return
    suffix = Path(save_steps).suffix.lower()
    if suffix not in animation.SUFFIXES:
        hint = f"use one of {', '.join(animation.SUFFIXES)}"
        raise UsageError(f"--save-steps {save_steps}: no animation format", hint)
    if not 0 < fps <= animation.MAX_FPS[suffix]:
        fastest = animation.MAX_FPS[suffix]
        raise UsageError(f"--fps {fps:g}: out of range", f"{suffix} takes up to {fastest:g}")
    check_folder(Path(save_steps), make="{" in save_steps)


class Animations:
    """``--save-steps``: a video for every image; a plain name is numbered from the second on."""

    def __init__(self, name: str | None, overwrite: bool, fps: float = 10.0):
        self.fps = fps
        where = destination(name, "") if name else None
        self._names = Names(where, "keep" if overwrite else "number") if where else None

    def write(self, job: Job, frames: list[np.ndarray]) -> list[str]:
        """Write the video of one image from its 8-bit frames (H, W, 3); gives its path.

        Raises InputError when it cannot be written.
        """
        if self._names is None:
            return []
        values = {"prompt": job.prompt, "seed": job.seed, "index": job.index + 1, "line": job.line}
        path = self._names.claim(values | dict(job.labels))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            animation.write_animation(part, _floats(frames), self.fps, name=path)
        frames.clear()
        return [str(path)]


def _floats(frames: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    import numpy as np

    for frame in frames:
        yield frame.astype(np.float32) / 255


class Sheet:
    """``--grid``, and the sheet of a sweep: images are read back from their files at the end."""

    def __init__(self, grid: str | None, axes: Sequence[Axis], outputs: Outputs):
        self._axes, self._overwrite = axes, outputs.overwrite
        self._path = Path(grid) if grid else _sweep_path(outputs.output) if axes else None
        self._cells: dict[int, tuple[Job, Any]] = {}

    @property
    def name(self) -> str:
        """The name of the sheet for messages."""
        return str(self._path)

    def add(self, job: Job, picture: Any) -> None:
        """Take an image: its path, or its pixels (H, W, C) where it has none."""
        if self._path is not None:
            self._cells[job.index] = job, picture

    def write(self) -> list[str]:
        """Write the sheet, where one is wanted and there are images; gives its path."""
        if self._path is None or not self._cells:
            return []
        path = self._path if self._overwrite else unique(self._path)
        pixels = self._pixels([self._cells[index] for index in sorted(self._cells)])
        atomic_write(path, image.encode(pixels, image.format_of(path)))
        return [str(path)]

    def _pixels(self, cells: list[tuple[Job, Any]]) -> np.ndarray:
        rows = list(dict.fromkeys(self._row(job) for job, _ in cells))
        columns = list(dict.fromkeys(self._column(job) for job, _ in cells))
        places = {(self._row(job), self._column(job)): picture for job, picture in cells}
        if not self._axes or len(self._axes) > 2 or len(places) < len(cells):
            labels = [f"{self._row(job)} {self._column(job)}".strip() for job, _ in cells]
            return sheet.contact_sheet(_Pictures([p for _, p in cells]), labels=labels)
        grid = [[places.get((row, column)) for column in columns] for row in rows]
        return sheet.grid_sheet(rows, columns, [_Pictures(line) for line in grid])

    def _row(self, job: Job) -> str:
        """Label of a row: the first of two axes, or prompt and seed."""
        if len(self._axes) == 2:
            return self._axes[0].label(job.place[0])
        swept = any(axis.option == "seed" for axis in self._axes)
        return job.prompt if swept else f"{job.prompt} · seed {job.seed}"

    def _column(self, job: Job) -> str:
        """Label of a column: the last axis, or all of more than two."""
        axes = self._axes[1:] if len(self._axes) == 2 else self._axes
        places = job.place[-len(axes) :] if axes else ()
        return ", ".join(a.label(place) for a, place in zip(axes, places, strict=True))


class _Pictures(Sequence):
    """Images by path or pixels, read when they are asked for: a sheet may hold thousands."""

    def __init__(self, sources: Sequence[Any]):
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:
        source = self._sources[index]
        return image.read(source).pixels if isinstance(source, (str, Path)) else source


def _sweep_path(output: str | None) -> Path | None:
    """Where the sheet of a sweep goes without ``--grid``: next to the images."""
    if output == "-":
        return None
    where = destination(output, "sweep")
    path = Path(where.template)
    if where.kind == "file":
        return path.with_name(f"{path.stem}-sweep.png")
    fixed = [part for part in path.parts[:-1] if "{" not in part]
    return Path(*fixed, "sweep.png")


def show_image(pixels: np.ndarray) -> None:
    """Draw an image on the terminal behind stderr, or say in a line why not."""
    size = shutil.get_terminal_size()
    columns, rows = size.columns - 1, min(size.lines - 2, 24)
    if terminal_preview.preview(pixels, sys.stderr, columns, rows):
        return
    if not sys.stderr.isatty():
        reason = "stderr is not a terminal"
    elif columns < terminal_preview.MIN_COLUMNS or rows < 1:
        reason = "the terminal is too narrow"
    else:
        reason = "this terminal shows no colours"
    print(f"dit: --preview: {reason}", file=sys.stderr)
