"""``dit info``: what an image file is and what it says about itself."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError
from dit_tools.core.reading import read_at_most
from dit_tools.media import dit_file, image
from dit_tools.media.metadata import read_parameters, read_record

SCHEMA = "dit.info/1"


def inspect_file(path: str) -> dict[str, Any]:
    """Facts of an image file, as ``docs/schema/info.schema.json`` describes them.

    ``-`` is the image that is piped in. Pixels are not kept: a PNG or JPEG that is cut off is found
    out by its end, other formats up to 16 megapixels by decoding. Raises InputError when the file
    is not a readable image, or its record is damaged.
    """
    source: str | bytes = piped() if path == "-" else path
    if isinstance(source, str) and Path(source).is_dir():
        pattern = Path(source) / "*.png"
        raise InputError(f"{path}: is a folder", f"give its images, such as 'dit info {pattern}'")
    if begins_as_dit(source):
        return compressed(source, path)
    picture = image.probe(source)
    return {
        "schema": SCHEMA,
        "path": path,
        "bytes": len(source) if isinstance(source, bytes) else Path(path).stat().st_size,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "bits": picture.bits,
        "channels": picture.channels,
        "alpha": picture.alpha,
        "icc": profile_name(picture.icc),
        "note": picture.note or None,
        "parameters": read_parameters(source),
        "record": read_record(source),
    }


def piped() -> bytes:
    """The image on stdin. Raises InputError when there is none, or when it is over 1 GiB."""
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("-: stdin is closed", "pipe an image in")
    content = read_at_most(sys.stdin.buffer, image.MAX_BYTES, "-: an image")
    if not content:
        raise InputError("-: stdin holds no image", "pipe one in")
    return content


def begins_as_dit(source: str | bytes) -> bool:
    """Whether a file, or the bytes of one, is what ``dit compress`` made, by its first bytes."""
    if isinstance(source, bytes):
        return source[:4] == dit_file.MAGIC
    try:
        with open(source, "rb") as stream:
            return stream.read(4) == dit_file.MAGIC
    except OSError:  # ``image.probe`` says why
        return False


def compressed(source: str | bytes, path: str) -> dict[str, Any]:
    """Facts of a ``.dit`` file from its header and extras; no pixel is decoded. Raises InputError."""
    content = source if isinstance(source, bytes) else dit_file.read(Path(source))
    file = dit_file.parse(content, path)
    height, width = file.size
    grey, alpha = bool(file.flags & dit_file.GREY), "alpha" in file.extras
    payload = sum(len(tile) for tile in file.tiles)
    facts = {
        "codec": file.codec,
        "tables": file.digest.hex(),
        "setting": file.setting,
        "rate": file.rate,
        "tiles": len(file.tiles),
        "payload_bytes": payload,
        "bpp": round(len(content) * 8 / (height * width), 5),
        "exif": "exif" in file.extras,
        "symbols_crc": f"{file.symbols:08x}",
    }
    return {
        "schema": SCHEMA,
        "path": path,
        "bytes": len(content),
        "format": "dit",
        "width": width,
        "height": height,
        "bits": 8,
        "channels": 4 if alpha else (1 if grey else 3),
        "alpha": alpha,
        "icc": profile_name(file.extra("icc")),
        "note": "more than 8 bits before compression" if file.flags & dit_file.DEEP else None,
        "parameters": None,
        "record": None,
        "compressed": facts,
    }


def profile_name(icc: bytes | None) -> str | None:
    """The description of a colour profile; ``unreadable`` when it is damaged, None without one."""
    if not icc:
        return None
    from PIL import ImageCms

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            return ImageCms.getProfileDescription(profile).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "unreadable"


def as_lines(facts: dict[str, Any]) -> list[str]:
    """The facts as lines for people; control characters of foreign metadata are made visible."""
    kind = f"{facts['format']}, {facts['width']}x{facts['height']}, {facts['bits']} bits"
    alpha = "with alpha" if facts["alpha"] else "opaque"
    made = [f"{facts['path']}: {kind}, {alpha}, {facts['bytes']} bytes"]
    made.append(f"  profile: {facts['icc'] or 'none (sRGB)'}")
    if facts["note"]:
        made.append(f"  note: {facts['note']}")
    if facts.get("compressed"):
        made += [f"  {key}: {value}" for key, value in facts["compressed"].items()]
    if facts["parameters"]:
        made.append("  parameters:")
        made += [f"    {line}" for line in facts["parameters"].splitlines()]
    if facts["record"]:
        made.append("  record:")
        made += [f"    {key}: {_flat(value)}" for key, value in facts["record"].items()]
    return [escape_control(line) for line in made]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "; ".join(_flat(entry) for entry in value)
    return str(value)


def escape_control(text: str) -> str:
    """Text that cannot steer a terminal: control characters as their escapes."""
    return "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in text)
