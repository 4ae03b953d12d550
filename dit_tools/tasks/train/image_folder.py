"""Captioned images of a user: a folder, or a zip of one.

Captions come from ``captions.jsonl`` (rows with ``file`` and ``caption``), else ``captions.csv``
(columns of these names), else from a ``.txt`` next to each image (``cat.png``, ``cat.txt``).
``file`` is relative to the file that names it. What cannot be used is reported and left out, never
trained on.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dit_tools.core.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
TABLES = ("captions.jsonl", "captions.csv")
FILE_KEYS, CAPTION_KEYS = ("file", "file_name", "image"), ("caption", "text", "prompt")
MAX_CAPTION = 2000  # characters of a caption

Tell = Callable[[dict[str, Any]], None]


class Files:
    """The files of a folder or a zip by their names, ``/`` between parts."""

    def __init__(self, source: Path):
        self.source = source
        self.archive: zipfile.ZipFile | None = None
        if source.is_dir():
            found = sorted(p for p in source.rglob("*") if p.is_file())
            self.names = [p.relative_to(source).as_posix() for p in found]
        else:
            try:
                self.archive = zipfile.ZipFile(source)
            except (OSError, zipfile.BadZipFile) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not a zip"
                raise InputError(f"{source}: cannot be read: {reason}", "give a folder of images, or its zip") from None
            self.names = sorted(i.filename for i in self.archive.infolist() if not i.is_dir())
        hidden = (".", "__MACOSX")
        self.names = [n for n in self.names if not any(part.startswith(hidden) for part in PurePosixPath(n).parts)]

    def read(self, name: str) -> bytes:
        """Content of a file. Raises OSError, or BadZipFile for a damaged archive."""
        if self.archive is not None:
            return self.archive.read(name)
        return (self.source / name).read_bytes()


def read_folder(source: Path, size: int, tell: Tell, strict: bool = False) -> tuple[np.ndarray, list[str]]:
    """The usable images, uint8 ``(N, 4, size, size)``, and their captions.

    Args:
        source: folder or zip.
        size: images are cropped in the middle to a square and resized to it, pixels.
        tell: gets ``{"type": "skipped", "file", "reason"}`` for everything that is left out.
        strict: refuse instead of leaving out.

    Raises:
        InputError: nothing usable, or with ``strict`` anything unusable; names the file.
    """
    files = Files(source)
    skipped = 0

    def skip(name: str, reason: str) -> None:
        nonlocal skipped
        skipped += 1
        if strict:
            raise InputError(f"{source}/{name}: {reason}", "fix it, or set strict = false")
        tell({"type": "skipped", "file": f"{source}/{name}", "reason": reason})

    pixels, captions = [], []
    for name, caption in _captioned(files, skip):
        try:
            image = decode_image(files.read(name), size)
        except Exception as error:  # noqa: BLE001  Pillow raises whatever a damaged file provokes
            skip(name, f"not an image that can be read ({_reason(error)})")
            continue
        pixels.append(image)
        captions.append(caption)
    if not pixels:
        raise InputError(
            f"{source}: no image with a caption" + (f", {skipped} skipped" if skipped else ""),
            "put a .txt next to each image, or add captions.jsonl or captions.csv",
        )
    return np.stack(pixels), captions


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def decode_image(content: bytes, size: int) -> np.ndarray:
    """An image as uint8 ``(4, size, size)``: colour over white, opacity; cropped to a square."""
    with Image.open(io.BytesIO(content)) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith(("I", "F")):  # 16 bits; Pillow would clip them
        values = np.asarray(image, np.float32)
        image = Image.fromarray((values / 257).clip(0, 255).astype(np.uint8))
    image = ImageOps.fit(image.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", image.size, "white")
    flat = np.asarray(Image.alpha_composite(white, image))[..., :3]
    alpha = np.asarray(image.getchannel("A"))[..., None]
    return np.concatenate([flat, alpha], 2).transpose(2, 0, 1)


def _captioned(files: Files, skip: Callable[[str, str], None]) -> Iterator[tuple[str, str]]:
    """Every image that has a caption, with it."""
    images = [n for n in files.names if n.lower().endswith(SUFFIXES)]
    tables = [n for n in files.names if PurePosixPath(n).name in TABLES]
    tables.sort(key=lambda n: (n.count("/"), TABLES.index(PurePosixPath(n).name)))
    if not tables:
        yield from _beside(files, images, skip)
        return
    known, named = set(images), set()
    folder = PurePosixPath(tables[0]).parent
    for line, file, caption in _rows(files, tables[0], skip):
        name = (folder / file).as_posix()
        if name not in known:
            skip(tables[0], f"line {line}: names {file!r}, which is not there")
        elif name in named:
            skip(tables[0], f"line {line}: names {file!r} again")
        elif good := _good(caption):
            named.add(name)
            yield name, good
        else:
            named.add(name)
            skip(name, "its caption is empty or too long")
    for name in images:
        if name not in named:
            skip(name, f"no caption in {tables[0]}")


def _beside(files: Files, pictures: list[str], skip: Callable[[str, str], None]) -> Iterator[tuple[str, str]]:
    known = set(files.names)
    for name in pictures:
        text = PurePosixPath(name).with_suffix(".txt").as_posix()
        if text not in known:
            skip(name, f"no caption: {PurePosixPath(text).name} is not there")
            continue
        try:
            caption = _good(files.read(text).decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError, zipfile.BadZipFile):
            skip(text, "not UTF-8 text that can be read")
            continue
        if caption:
            yield name, caption
        else:
            skip(text, "the caption is empty or too long")


def _good(caption: Any) -> str:
    """The caption in one line; empty when it cannot be used."""
    text = " ".join(caption.split()) if isinstance(caption, str) else ""
    return text if len(text) <= MAX_CAPTION else ""


def _rows(files: Files, table: str, skip: Callable[[str, str], None]) -> Iterator[tuple[int, str, Any]]:
    """Line number, file and caption of every row that has both."""
    try:
        text = files.read(table).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile):
        raise InputError(f"{files.source}/{table}: not UTF-8 text", "save it as UTF-8") from None
    for line, row in _jsonl(text) if table.endswith(".jsonl") else _csv(text):
        if row is None:
            skip(table, f"line {line}: not a JSON object")
            continue
        file = next((row[key] for key in FILE_KEYS if row.get(key)), None)
        caption = next((row[key] for key in CAPTION_KEYS if row.get(key) is not None), None)
        if isinstance(file, str):
            yield line, file.replace("\\", "/"), caption
        else:
            skip(table, f"line {line}: no 'file'")


def _jsonl(text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for line, content in enumerate(text.splitlines(), 1):
        if content.strip():
            try:
                row = json.loads(content)
            except ValueError:
                row = None
            yield line, row if isinstance(row, dict) else None


def _csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        yield reader.line_num, row
