"""Animations and short videos out of frames: GIF, animated WebP, MP4."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dit_tools.core.errors import InputError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".gif", ".webp", ".mp4")
MAX_FPS = {".gif": 50.0, ".webp": 1000.0, ".mp4": 240.0}  # GIF counts in 1/100 s; players want 2


TICKS = {".gif": 10, ".webp": 1}  # ms that the format counts in
COLOURS = (
    "scale=in_range=pc:out_range=tv:out_color_matrix=bt709,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1"
)
"""ffmpeg's filter: BT.709 at every size. By itself it takes BT.601, which players of HD do not expect."""
TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1", "-color_range", "tv")


def write_animation(
    path: str | Path, frames: Iterable[np.ndarray], fps: float, hold: float = 1.0, name: str | Path | None = None
) -> None:
    """Write frames as a video that loops (GIF, WebP) or plays (MP4, H.264, 4:2:0).

    It writes straight to ``path``: give it the hidden path of ``batch.atomic.atomic_path``. MP4 is
    written as frames come; GIF and WebP keep them in memory as bytes. MP4 sizes are made even by
    repeating the last row or column.

    Args:
        path: ends with .gif, .webp or .mp4.
        frames: float ``(H, W, C)`` in [0, 1], all of one size; C = 1 or 3, or 4, put over white.
        fps: frames a second: above 0, to 50 for GIF, 240 for MP4.
        hold: seconds that the last frame stays longer, 0..60.
        name: what errors call the file (default: ``path``).

    Raises:
        UsageError: another suffix, a speed or hold out of range, no frame, frames of two sizes.
        InputError: the file cannot be written.
        UnsupportedError: the encoder is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: no animation format", f"use one of {', '.join(SUFFIXES)}")
    if not 0 < fps <= MAX_FPS[suffix]:
        raise UsageError(f"{fps} frames a second", f"{suffix} takes up to {MAX_FPS[suffix]:g}")
    if not 0 <= hold <= 60:
        raise UsageError(f"the last frame held for {hold} s", "give 0..60")
    try:
        if suffix == ".mp4":
            _film(path, _uniform(frames), fps, hold)
        else:
            _loop(path, list(_uniform(frames)), fps, hold)
    except ImportError as error:
        hint = "install dit with its media extra"
        raise UnsupportedError(f"{name or path}: {error.name} is missing", hint) from None
    except OSError as error:
        reason = (error.strerror or str(error)).strip().splitlines()[0]
        raise InputError(f"{name or path}: cannot be written: {reason}", "choose another with -o") from error


def _uniform(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames as uint8 ``(H, W, 3)``, checked to be of one size and at least one."""
    import numpy as np

    first = None
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] not in (1, 3, 4) or 0 in frame.shape:
            raise UsageError(f"a frame must be (H, W, 1|3|4), not {frame.shape}")
        first = frame.shape[:2] if first is None else first
        if frame.shape[:2] != first:
            raise UsageError(f"frames of two sizes: {first} and {frame.shape[:2]}")
        if frame.shape[2] == 4:
            frame = frame[:, :, :3] * frame[:, :, 3:] + (1 - frame[:, :, 3:])
        samples = np.rint(np.nan_to_num(frame, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
        yield samples if samples.shape[2] == 3 else samples.repeat(3, axis=2)
    if first is None:
        raise UsageError("an animation needs at least one frame")


def _loop(path: str | Path, frames: list[np.ndarray], fps: float, hold: float) -> None:
    import imageio.v3 as imageio

    suffix = Path(path).suffix.lower()
    durations = pauses(len(frames), fps, TICKS[suffix])
    durations[-1] += round(1000 * hold)
    options = {"loop": 0, "duration": durations if len(frames) > 1 else durations[0]}
    if suffix == ".webp":
        options |= {"quality": 90, "method": 4}
    # In memory first: where a write to the disk fails, the writer would try it again as it goes away.
    content = io.BytesIO()
    imageio.imwrite(content, frames, plugin="pillow", extension=suffix, **options)
    Path(path).write_bytes(content.getvalue())


def pauses(count: int, fps: float, tick: int) -> list[int]:
    """How long each of ``count`` frames stays, in ms: whole ticks whose sum keeps to the speed.

    GIF knows hundredths of a second only: 40 frames a second alternate between 2 and 3 of them.
    """
    ends = [round(1000 * frame / fps / tick + 1e-9) * tick for frame in range(count + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def _film(path: str | Path, frames: Iterator[np.ndarray], fps: float, hold: float) -> None:
    import numpy as np
    from imageio_ffmpeg import get_ffmpeg_exe

    first = next(frames)  # before the encoder starts, so that no frame leaves no file
    height, width = (side + side % 2 for side in first.shape[:2])
    edge = ((0, height - first.shape[0]), (0, width - first.shape[1]), (0, 0))
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.02f}", "-i", "-")
    coded = ("-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-vf", COLOURS, *TAGS, "-crf", "18")
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *given, *coded, "-movflags", "+faststart", str(path)]
    with _encoder(command) as take:
        last = b""
        for frame in itertools.chain([first], frames):
            last = np.pad(frame, edge, "edge").tobytes()
            take(last)
        for _ in range(math.floor(hold * fps)):
            take(last)


@contextlib.contextmanager
def _encoder(command: list[str]) -> Iterator[Callable[[bytes], object]]:
    """A running ffmpeg that takes frames; raises OSError with its reason where it did not finish the file.

    In its own session, so that Ctrl-C does not end it before its file is whole.
    """
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # its exit status says why it went away
                yield process.stdin.write
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        if status:
            told.seek(0)
            raise _failure(status, told.read().decode(errors="replace"))


def _failure(status: int, told: str) -> OSError:
    """The reason of an encoder that failed: the system's own error where it names one."""
    if status == -getattr(signal, "SIGXFSZ", 0):
        return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT):
        if os.strerror(number) in told:
            return OSError(number, os.strerror(number))
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return OSError(errno.EIO, lines[-1] if lines else f"ffmpeg ended with status {status}")
