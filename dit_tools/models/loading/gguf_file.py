"""GGUF files: checked before anything is allocated, then read by the ``gguf`` library's rules.

A file is a header (counts, key-value pairs, a table of tensors) and the tensors' blocks. The header
is walked here with bounds, because a count in a hostile file would keep the library busy for ever.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models.loading import validation

MAGIC, VERSIONS = b"GGUF", (2, 3)
COUNT, TEXT, SIDE = 100_000, 1 << 24, 1 << 32
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""GGUF's number of a scalar type -> bytes."""
STRING, ARRAY = 8, 9
EXTRA = "pip install 'dit-tools[gguf]'"


@dataclass(frozen=True)
class Tensor:
    """``shape`` as torch has it, ``kind`` such as ``Q4_0``, place in the file in bytes."""

    shape: tuple[int, ...]
    kind: str
    start: int
    size: int


def library() -> Any:
    """The ``gguf`` library. Raises UnsupportedError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise UnsupportedError("GGUF files need the gguf library", EXTRA) from None
    return gguf


def header(path: Path) -> dict[str, Tensor]:
    """Name -> place of every tensor. Raises ModelError naming a damaged file."""
    gguf = library()
    try:
        with path.open("rb") as file:
            return _header(file, path.stat().st_size, gguf)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", "check path and rights") from None
    except (ValueError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged GGUF file, {error}", validation.DAMAGED) from None


def _header(file: BinaryIO, size: int, gguf: Any) -> dict[str, Tensor]:
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, tensors, pairs = struct.unpack("<IQQ", file.read(20))
    if version not in VERSIONS:
        raise ValueError(f"version {version}")
    if tensors > COUNT or pairs > COUNT:
        raise ValueError("its counts are out of bounds")
    alignment = 32
    for _ in range(pairs):
        key = _text(file)
        value = _value(file, *struct.unpack("<I", file.read(4)), size)
        alignment = value if key == "general.alignment" else alignment
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise ValueError("its alignment is out of bounds")
    table = dict(_entries(file, tensors))
    base = -(-file.tell() // alignment) * alignment
    return {name: _placed(name, entry, base, size, gguf) for name, entry in table.items()}


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > TEXT:
        raise ValueError("a text is too long")
    raw = file.read(length)
    if len(raw) < length:
        raise ValueError("it is cut off")
    return raw.decode("utf-8")


def _value(file: BinaryIO, kind: int, size: int) -> Any:
    """Step over a value; whole numbers are returned."""
    if kind == STRING:
        return _text(file)
    if kind != ARRAY:
        raw = file.read(SCALARS[kind])
        return int.from_bytes(raw, "little") if kind not in (6, 7, 12) else None
    inner, count = struct.unpack("<IQ", file.read(12))
    if inner == STRING and count <= size // 8:
        for _ in range(count):
            _text(file)
    elif inner in SCALARS and count <= size:
        file.seek(count * SCALARS[inner], 1)
    else:
        raise ValueError("an array is out of bounds")
    return None


def _entries(file: BinaryIO, count: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for _ in range(count):
        name = _text(file)
        (rank,) = struct.unpack("<I", file.read(4))
        if rank > 4:
            raise ValueError(f"tensor {name[:80]!r} has {rank} sides")
        sides = struct.unpack(f"<{rank}Q", file.read(8 * rank))
        kind, offset = struct.unpack("<IQ", file.read(12))
        yield name, (tuple(reversed(sides)), kind, offset)


def _placed(name: str, entry: tuple[Any, ...], base: int, size: int, gguf: Any) -> Tensor:
    shape, kind, offset = entry
    try:
        known = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise ValueError(f"tensor {name[:80]!r} has unknown type {kind}") from None
    block, bytes_ = gguf.GGML_QUANT_SIZES[known]
    count = math.prod(shape)
    if any(side > SIDE for side in shape) or count > SIDE or (shape and shape[-1] % block):
        raise ValueError(f"tensor {name[:80]!r} is out of bounds")
    length = count // block * bytes_
    if base + offset + length > size:
        raise ValueError("it is cut off")
    return Tensor(shape, known.name, base + offset, length)


def blocks(path: Path, tensor: Tensor) -> Any:
    """The bytes of a tensor, numpy uint8, read when they are used."""
    import numpy as np

    if not tensor.size:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r", tensor.start, (tensor.size,))


def to_numpy(path: Path, tensor: Tensor) -> Any:
    """A tensor in float32, numpy. Raises UnsupportedError for types the library cannot decode."""
    gguf = library()
    raw = blocks(path, tensor)
    rows = raw.reshape(*tensor.shape[:-1], -1) if tensor.shape else raw
    try:
        made = gguf.dequantize(rows, gguf.GGMLQuantizationType[tensor.kind])
    except NotImplementedError:
        raise UnsupportedError(f"{path}: the gguf library cannot decode {tensor.kind}") from None
    return made.astype("float32").reshape(tensor.shape)
