"""Frames one after the other: images of a folder, a video, or a pipe of PNG or PPM images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dit_tools.core.errors import DitError, InputError
from dit_tools.media import image

if TYPE_CHECKING:
    import numpy as np

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv")
"""Suffixes that are read through ffmpeg."""
PNG = b"\x89PNG\r\n\x1a\n"
MOVING = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats of Pillow that hold moving images."""
MAX_CHUNK_BYTES = 1 << 28  # bytes of one frame in a pipe
MAX_SIDE = 64  # bytes of a PPM header


def is_video(path: Path) -> bool:
    """Whether ffmpeg reads this file."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def of_images(path: Path) -> Iterator[np.ndarray]:
    """Frames of an animated GIF, PNG, WebP or AVIF, or the one image of any other file.

    float32 (H, W, C) in [0, 1], as ``image.read`` gives them. Raises InputError as that does.
    """
    import numpy as np
    from PIL import Image, ImageSequence

    image.probe(path)  # raises for what is no image, too large or too long
    with Image.open(path) as video:
        done = 0
        try:
            if video.format not in MOVING or getattr(video, "n_frames", 1) < 2:
                yield image.read(path).pixels
                return
            for frame in ImageSequence.Iterator(video):
                whole = frame.convert("RGBA" if frame.has_transparency_data else "RGB")
                yield np.asarray(whole, dtype=np.float32) / 255
                done += 1
        except DitError:
            raise
        except Exception as error:  # decoders of hostile bytes raise anything; none may reach the user
            raise InputError(f"{path}: frame {done + 1} cannot be read: {error}", "check the file") from None


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video, float32 (H, W, 3) in [0, 1]. Raises InputError when it cannot be read."""
    import imageio.v2 as imageio
    import numpy as np

    try:
        reader: Any = imageio.get_reader(str(path), format="FFMPEG")  # type: ignore[arg-type]
        width, height = reader.get_meta_data()["size"]
        if width * height > image.MAX_PIXELS:
            raise InputError(f"{path}: {width} x {height} pixels", "use a smaller video")
        with reader:
            for frame in reader:
                yield np.asarray(frame, dtype=np.float32) / 255
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, SyntaxError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: cannot be read as a video: {reason}", "check the file") from None


def read_pipe(stream: BinaryIO | None = None) -> Iterator[np.ndarray]:
    """Images that follow each other in a pipe, float32 (H, W, C); stdin if nothing is said.

    What ``ffmpeg -f image2pipe -c:v png`` (or ``ppm``) and ``dit generate -o -`` write. Each is
    given as soon as it is whole. Raises InputError for anything else, and for half an image.
    """
    source = stream or sys.stdin.buffer
    for count in range(1, sys.maxsize):
        head = source.read(2)
        if not head:
            return
        where = f"frame {count} of the pipe"
        content = _ppm(source, where) if head == b"P6" else _png(source, head, where)
        yield image.read(content).pixels


def _png(source: BinaryIO, head: bytes, where: str) -> bytes:
    """A whole PNG: its signature, then chunks up to IEND."""
    found = head + _exactly(source, len(PNG) - len(head), where)
    if found != PNG:
        raise InputError(f"{where}: neither PNG nor PPM", "use ffmpeg -f image2pipe -c:v png")
    parts, size = [found], len(found)
    while True:
        chunk = _exactly(source, 8, where)
        length = int.from_bytes(chunk[:4], "big")
        size += length + 12
        if size > MAX_CHUNK_BYTES:
            raise InputError(f"{where}: over {MAX_CHUNK_BYTES} bytes", "use smaller frames")
        parts += [chunk, _exactly(source, length + 4, where)]
        if chunk[4:] == b"IEND":
            return b"".join(parts)


def _ppm(source: BinaryIO, where: str) -> bytes:
    """A whole binary PPM: three numbers, one white space, samples of one or two bytes."""
    head, numbers = b"P6", []
    while len(numbers) < 3:
        head += _exactly(source, 1, where)
        if len(head) > MAX_SIDE:
            raise InputError(f"{where}: a bad PPM header", "use ffmpeg -f image2pipe -c:v ppm")
        if head[-1:].isspace():
            numbers = head.split()[1:]
    try:
        width, height, top = (int(number) for number in numbers)
    except ValueError:
        width = height = top = 0
    size = width * height * 3 * (2 if top > 255 else 1)
    if not (width > 0 and height > 0 and 0 < top < 65536 and size <= MAX_CHUNK_BYTES):
        raise InputError(f"{where}: a bad PPM header", "use ffmpeg -f image2pipe -c:v ppm")
    return head + _exactly(source, size, where)


def _exactly(source: BinaryIO, count: int, where: str) -> bytes:
    """``count`` bytes; a pipe may give them in pieces."""
    parts = []
    while count:
        part = source.read(min(count, 1 << 20))
        if not part:
            raise InputError(f"{where}: ends in the middle", "check what writes the pipe")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
