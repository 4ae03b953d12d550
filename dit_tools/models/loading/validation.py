"""Checks before a weight file is opened: a damaged or hostile file gives one line, never a crash.

A safetensors file is eight bytes of header length (little endian), a JSON header that gives every
tensor's type, shape and byte range, and the bytes. The header is checked in full here; the bytes
can be anything. No torch, no numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dit_tools.core import reading
from dit_tools.core.errors import InputError, ModelError
from dit_tools.models.loading.config_limits import check_config

HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors library itself
JSON_LIMIT = 50_000_000  # bytes of an index file; the largest in use are below 1 MB
RANK_LIMIT, SIDE_LIMIT = 32, 2**48
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAGIC = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
SAMPLE = 256  # bytes of every tensor that go into a fingerprint

DAMAGED = "download it again, or run 'dit models verify'"
NO_PICKLE = "convert it to safetensors, or add --allow-pickle (weights only; trust the source)"


# one file ---------------------------------------------------------------------------------------


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> ``dtype``, ``shape``, ``data_offsets`` of a safetensors file, fully checked.

    Raises ModelError naming the file when it cannot be read, is truncated, is a pickle under a
    wrong name, or its header is not well-formed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(HEADER_LIMIT, size - 8):
                refuse_magic(path, start)
                raise _damaged(path, "its header does not fit into the file")
            raw = file.read(length)
            if not raw.startswith(b"{"):  # a header of 640 bytes begins as a pickle does
                refuse_magic(path, start)
        tensors = reading.parse_json(raw, "")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", "check path and rights") from None
    except InputError:
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(tensors, dict):
        raise _damaged(path, "its header is not a table")
    _check_metadata(path, tensors.pop("__metadata__", None) or {})
    _check_ranges(path, tensors, size - 8 - length)
    return tensors


def metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries about itself. Raises ModelError as ``header``."""
    header(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)).get("__metadata__") or {}


def refuse_magic(path: Path, start: bytes) -> None:
    """Raise ModelError when the first bytes are those of a pickle or of a zip of pickles."""
    if start.startswith(MAGIC):
        raise ModelError(f"{path}: a pickle file under the name of a safetensors file", NO_PICKLE)


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"{path}: damaged safetensors file, {what}", DAMAGED)


def _check_metadata(path: Path, texts: Any) -> None:
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise _damaged(path, "its metadata are not texts")


def _check_ranges(path: Path, tensors: Mapping[str, Any], size: int) -> None:
    """Every tensor has its bytes, and the tensors fill the file without gap or overlap."""
    ranges = sorted(_range(path, name, entry) for name, entry in tensors.items())
    end = 0
    for low, high in ranges:
        if low != end:
            raise _damaged(path, "its tensors overlap or leave gaps")
        end = high
    if end != size:
        raise _damaged(path, f"it holds {size} bytes of tensors where {end} are announced")


def _range(path: Path, name: str, entry: Any) -> tuple[int, int]:
    where = f"tensor {name[:80]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"{where} is not described")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ModelError(f"{path}: {where} has unknown type {str(dtype)[:20]!r}", DAMAGED)
    if not _counts(shape, RANK_LIMIT) or not _counts(offsets, 2) or len(offsets) != 2:
        raise _damaged(path, f"{where} has a bad shape or range")
    bits = BITS[dtype]
    for side in shape:
        bits *= side
    if offsets[0] > offsets[1] or bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise _damaged(path, f"{where} does not fill its range")
    return offsets[0], offsets[1]


def _counts(values: Any, limit: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= limit
        and all(type(value) is int and 0 <= value < SIDE_LIMIT for value in values)
    )


# a folder in diffusers format -------------------------------------------------------------------


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """A JSON table. Raises ModelError when missing, larger than ``limit`` bytes or not a table."""
    try:
        if path.stat().st_size > limit:
            raise ModelError(f"{path}: larger than {limit} bytes", "this is not a model's file")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", DAMAGED) from None
    try:
        made = reading.parse_json(content, "", constants=True)
    except InputError:
        raise ModelError(f"{path}: not valid JSON", DAMAGED) from None
    if not isinstance(made, dict):
        raise ModelError(f"{path}: not a JSON table", DAMAGED)
    return made


def components(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Part -> (library, class) of a ``model_index.json``, without parts that are absent by design.

    Raises ModelError when the file is missing or damaged, or names code of its own.
    """
    index = read_json(folder / "model_index.json", 1_000_000)
    own = ModelError(
        f"{folder / 'model_index.json'}: the model wants to run code of its own, and dit does not",
        "use a model whose classes are in diffusers and transformers",
    )
    if not _identifier(index.get("_class_name")):
        raise own
    found = {}
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not re.fullmatch(r"\w+", part):
            raise ModelError(f"{folder / 'model_index.json'}: {part[:40]!r} is no part", DAMAGED)
        library, name = value
        if library is None or name is None:
            continue
        if not _identifier(library) or not _identifier(name) or _own_code(folder, part, library):
            raise own
        found[part] = (library, name)
    return found


def pipeline_class(folder: Path) -> str:
    """The pipeline's class name. Raises ModelError as ``components`` does."""
    components(folder)
    return read_json(folder / "model_index.json", 1_000_000)["_class_name"]


def _identifier(word: Any) -> bool:
    return isinstance(word, str) and bool(re.fullmatch(r"[A-Za-z_]\w{0,99}", word))


def _own_code(folder: Path, part: str, library: str) -> bool:
    """Whether a part's library is neither diffusers, transformers nor a pipeline of diffusers."""
    if (folder / part / f"{library}.py").exists():
        return True
    return library not in ("diffusers", "transformers") and library not in _pipelines()


@lru_cache
def _pipelines() -> frozenset[str]:
    """Names of the pipeline packages of the installed diffusers, without importing it."""
    import importlib.util

    spec = importlib.util.find_spec("diffusers")
    root = Path(spec.origin).parent / "pipelines" if spec and spec.origin else Path()
    return frozenset(path.parent.name for path in root.glob("*/__init__.py"))


def check_folder(folder: Path, *, allow_pickle: bool = False, without: str = "") -> None:
    """Check index, configs and weight files of all parts of a folder in diffusers format.

    ``without``: a part whose weights come from elsewhere. Raises ModelError naming the file.
    """
    for part, (_, name) in components(folder).items():
        here = folder / part
        if not here.is_dir():
            raise ModelError(f"{here}: missing, but model_index.json names it", DAMAGED)
        if (here / "config.json").exists() and not str(name).endswith("Scheduler"):
            check_config(here / "config.json", read_json(here / "config.json", 10_000_000))
            if part != without:
                check_weights(here, allow_pickle=allow_pickle)


def check_weights(folder: Path, *, allow_pickle: bool = False) -> None:
    """Check the weight files of one part. Raises ModelError naming the file."""
    tensors = [header(path) for path in weight_files(folder)]
    for index in folder.glob("*.safetensors.index.json"):
        _check_index(index)
    if tensors:
        return
    pickles = [path for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    if not pickles:
        raise ModelError(f"{folder}: no weights", DAMAGED)
    if not allow_pickle:
        raise ModelError(f"{pickles[0]}: pickled weights can run code when opened", NO_PICKLE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _check_index(path: Path) -> None:
    """Every tensor of an index of shards is in the shard that it names."""
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"{path}: no weight_map", DAMAGED)
    known: dict[str, Any] = {}
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.\-]+\.safetensors", shard):
            raise ModelError(f"{path}: {str(shard)[:80]!r} is no shard's name", DAMAGED)
        if shard not in known:
            if not (path.parent / shard).exists():
                raise ModelError(f"{path.parent / shard}: missing shard", DAMAGED)
            known[shard] = header(path.parent / shard)
        if tensor not in known[shard]:
            raise ModelError(f"{path.parent / shard}: no tensor {tensor[:80]!r}", DAMAGED)


# fingerprints -----------------------------------------------------------------------------------


def content_hash(path: Path) -> str:
    """Twelve hexadecimal digits that name the content of a model's folder or of a weight file.

    Names and sizes of all files, the text of JSON and text files, and of each safetensors file its
    header and the first 256 bytes of every tensor: fine-tunes of one model differ, and 20 GB are
    read in a moment. It tells models apart; it is no proof against tampering ('dit models verify').
    Raises ModelError for a damaged weight file.
    """
    files = [path] if path.is_file() else sorted(_files(path))
    root = path.parent if path.is_file() else path
    stats = [(file, file.stat()) for file in files]
    return _hash(root, tuple((f.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns) for f, s in stats))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (Path(place, name) for name in names if not name.startswith("."))


@lru_cache(64)
def _hash(root: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in files:
        path = root / name
        digest.update(f"{len(name)}:{name}:{size}:".encode())
        if path.suffix in (".json", ".txt") and size < 1_000_000:
            digest.update(path.read_bytes())
        elif path.suffix == ".safetensors":
            _sample(path, digest)
        elif path.suffix == ".gguf":
            with path.open("rb") as file:
                for place in range(0, size, max(size // 4096, SAMPLE)):
                    file.seek(place)
                    digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:12]


def _sample(path: Path, digest: Any) -> None:
    tensors = header(path)
    with path.open("rb") as file:
        base = int.from_bytes(file.read(8), "little") + 8
        file.seek(0)
        digest.update(file.read(base))
        for low, high in sorted(entry["data_offsets"] for entry in tensors.values()):
            file.seek(base + low)
            digest.update(file.read(min(SAMPLE, high - low)))
