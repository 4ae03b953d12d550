"""An output folder that is whole or absent, and what of a model's folder goes into it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from dit_tools.core.errors import InputError
from dit_tools.jobs import interrupt
from dit_tools.jobs.atomic import part_name, remove_leftovers, write_error
from dit_tools.models.loading import validation

FACTS_FILE = "export.json"
DOCUMENTS = ("README", "LICENSE", "LICENCE", "NOTICE")
LEFT_OUT = (*validation.PICKLES, ".onnx", ".data", ".msgpack", ".h5", ".ot", ".tflite")
MARGIN = 1 << 26  # bytes for the graphs


@contextlib.contextmanager
def whole_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder next to ``path`` that takes its name when the block succeeds.

    It is removed on any exception. Any OSError of the block is taken for a failed write.
    Raises InputError when ``path`` cannot be written; ``check_output`` says the rest beforehand.
    """
    remove_leftovers(path.parent)
    part = path.parent / part_name()
    interrupt.temporary.add(part)
    try:
        part.mkdir()
        yield part
        publish_folder(part, path, overwrite)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        interrupt.temporary.discard(part)


def publish_folder(part: Path, path: Path, overwrite: bool) -> None:
    """Give the folder ``part`` the name ``path``."""
    old = None
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    elif path.exists() and overwrite:
        old = part.with_name(f"{part.name}-old")
        path.rename(old)
    part.rename(path)  # fails where something has come into being meanwhile
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def check_output(path: Path, source: Path, overwrite: bool, facts: str = FACTS_FILE, kind: str = "export") -> None:
    """Raise InputError when ``path`` may not become the output of a command that read ``source``.

    ``facts``: the file that tells an earlier output, of ``kind``, from a folder of the user's.
    """
    if not path.parent.is_dir():
        raise InputError(f"-o {path}: its folder does not exist", "create it first")
    real, origin = path.resolve(), source.resolve()
    if real == origin or real in origin.parents:
        raise InputError(f"-o {path}: the model itself lies there", "choose another folder")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / facts).is_file():
        raise InputError(f"-o {path}: exists and is no {kind}", "choose another folder")
    if not overwrite:
        raise InputError(f"-o {path}: exists", "add --overwrite, or choose another folder")


def check_space(files: list[Path], output: Path, held: int = 0) -> None:
    """Raise InputError when the disk cannot hold copies of ``files`` and the graphs.

    ``held``: bytes on it that the work will use or remove.
    """
    needed = sum(path.stat().st_size for path in files) + MARGIN
    free = shutil.disk_usage(output.parent).free + held
    if needed > free:
        raise InputError(
            f"-o {output}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            "free some space, or choose another disk",
        )


def model_files(source: Path) -> list[Path]:
    """The files of a model in diffusers format that its export takes along.

    Index, documents, and of each part everything but pickles, graphs and, where the weights are
    there in full, their variants.
    """
    found = [path for path in sorted(source.iterdir()) if _top(path)]
    for part in validation.components(source):
        files = [path for path in sorted((source / part).rglob("*")) if _wanted(path)]
        plain = any(_weights(path) and not _variant(path) for path in files)
        found += [path for path in files if not (plain and _variant(path))]
    return found


def model_weights(part: Path) -> list[Path]:
    """The weight files of a part that an export takes along."""
    files = validation.weight_files(part)
    return [path for path in files if not _variant(path)] or files


def copy_files(files: list[Path], source: Path, target: Path) -> None:
    """Copy files to the same places below ``target``; links become what they point to."""
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _top(path: Path) -> bool:
    named = path.name in ("model_index.json", "dit.json") or path.name.startswith(DOCUMENTS)
    return path.is_file() and named


def _wanted(path: Path) -> bool:
    return path.is_file() and path.suffix not in LEFT_OUT and not path.name.startswith(".")


def _weights(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _variant(path: Path) -> bool:
    """Whether a name is that of a variant: ``model.fp16.safetensors`` or its index."""
    return any(word in path.name for word in (".fp16.", ".bf16.", ".non_ema."))
