"""Going on after a kill: the hidden folder of a request keeps what was learned and written.

Its name is a fingerprint of the output and of the model, its files, scheme, target and options, so
that the same command finds it and another one starts again (and removes what an earlier one left for
this output). It becomes the output when all is done, goes away with an error that would come again,
and stays after Ctrl-C, SIGTERM, SIGKILL, a power cut or a full disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError
from dit_tools.jobs.atomic import PREFIX, write_error
from dit_tools.methods.quantization import ActivationStats
from dit_tools.tasks.export import model_folder
from dit_tools.tasks.quantize.safetensors_writer import SafetensorsWriter

ROWS, SEEN, BITS, LOCK = "rows.ndjson", "seen.safetensors", "bits.json", "lock"
SCRATCH, STEPS, STEP = "scratch", "steps.json", "step"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Work:
    """The hidden folder. ``rows``: lines of the table of the layers that are written."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, []
        with suppress(OSError, ValueError):
            for line in (folder / ROWS).read_text(encoding="utf-8").splitlines():
                self.rows.append(json.loads(line))  # the last line may be cut off

    # layers ---------------------------------------------------------------------------------------

    def add(self, row: Mapping[str, Any]) -> None:
        """Note that a layer is written; its bytes must be on the disk already."""
        self.rows.append(dict(row))
        _store(self.folder / ROWS, "".join(json.dumps(one) + "\n" for one in self.rows))

    # what calibration learned ---------------------------------------------------------------------

    def keep(self, seen: Mapping[str, ActivationStats], bits: Mapping[str, int] | None) -> None:
        """Store what calibration saw and which bits were chosen."""
        fields = ("moments", "peak", "sample", "weight", "scale", "half", "others")
        tensors = {
            f"{name}/{key}": getattr(one, key).cpu()
            for name, one in seen.items()
            for key in fields
            if getattr(one, key) is not None
        }
        _store(self.folder / BITS, json.dumps(bits))
        write_tensors(self.folder / SEEN, tensors)

    def kept(self) -> tuple[dict[str, ActivationStats], dict[str, int] | None] | None:
        """What ``keep`` stored, or None."""
        if not (self.folder / SEEN).is_file():
            return None
        from safetensors.torch import load_file

        found: dict[str, dict[str, Any]] = {}
        for name, tensor in load_file(self.folder / SEEN).items():
            layer, _, key = name.rpartition("/")
            found.setdefault(layer, {})[key] = tensor
        bits = json.loads((self.folder / BITS).read_text(encoding="utf-8"))
        return {name: ActivationStats(**fields) for name, fields in found.items()}, bits

    # whole files ----------------------------------------------------------------------------------

    @property
    def scratch(self) -> Path:
        """A folder for what is needed on the way and goes away in the end."""
        path = self.folder / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    def once(self, name: str, make: Callable[[Path], Any], aside: bool = False) -> Any:
        """What ``make`` returned, to be stored as JSON, when it filled the folder that it is given.

        Its files then move into the output, or ``aside`` into ``scratch``. A run that goes on does
        not make them again.
        """
        path = self.scratch / STEPS
        steps = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if name not in steps:
            place = self.scratch / STEP
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            steps[name] = make(place)
            for made in sorted(place.iterdir()):
                target = (self.scratch if aside else self.folder) / made.name
                shutil.rmtree(target, ignore_errors=True)  # of a kill between here and _store
                os.replace(made, target)
            _store(path, json.dumps(steps))
        return steps[name]

    def tensors(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The torch tensors of ``make``, made once. ``name`` is that of a layer."""
        from safetensors.torch import load_file

        folder = self.scratch / "layers"
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
        if not path.is_file():
            folder.mkdir(exist_ok=True)
            write_tensors(path, make())
        return load_file(path)

    def tidy(self) -> None:
        """Remove what the output does not need."""
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        for name in (ROWS, SEEN, BITS, LOCK):
            (self.folder / name).unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """A safetensors file of torch tensors, whole or absent. Raises OSError, as the library does not
    where the disk is full.
    """
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8"}
    entries = {name: (kinds[str(tensor.dtype)[6:]], tuple(tensor.shape)) for name, tensor in tensors.items()}
    part = path.with_name(f"{path.name}.part")
    with SafetensorsWriter(part, entries) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.finish()
        writer.flush()
    part.replace(path)


def _store(path: Path, text: str) -> None:
    """Replace a small file in one step."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


# the folder -------------------------------------------------------------------------------------


@contextmanager
def workplace(output: Path, overwrite: bool, request: Mapping[str, Any]) -> Iterator[Work]:
    """The hidden folder next to ``output`` that becomes it when the block succeeds.

    ``request``: everything that decides what is written. Raises InputError where another process
    is at the same work, or where writing fails.
    """
    ours = _ours(output)
    part = output.parent / f"{ours}{_fingerprint(json.dumps(request, sort_keys=True))}"
    try:
        part.mkdir(exist_ok=True)
        with _alone(part, output):
            _forget(output.parent, ours, part)
            work = Work(part)
            yield work
            work.tidy()
            model_folder.publish_folder(part, output, overwrite)
    except _Busy:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is not None and reason.errno in FULL:
            raise _full(output, part, reason) from error
        shutil.rmtree(part, ignore_errors=True)
        if reason is not None:
            raise write_error(output, reason) from error
        raise


def _ours(output: Path) -> str:
    """How the names of hidden folders for an output begin."""
    return f"{PREFIX}{_fingerprint(str(output.absolute()))}-"


def held_bytes(output: Path) -> int:
    """Bytes that interrupted runs for an output hold on its disk: they are used, or removed."""
    folders = [path for path in output.parent.glob(f"{_ours(output)}*") if path.is_dir()]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reason(error: Exception) -> OSError | None:
    """The failed write that an error comes of."""
    cause = error.__cause__ if isinstance(error, InputError) else error
    if isinstance(cause, OSError):
        return cause
    no_space = "No space left on device" in str(error)  # as libraries in C++ and Rust have it
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if no_space else None


def _full(output: Path, part: Path, error: OSError) -> InputError:
    """A full disk, of the output or of temporary files: what is done is kept."""
    temporary = error.filename == tempfile.gettempdir()
    place, free = (Path(error.filename), "set TMPDIR") if temporary else (output, "free some space")
    hint = f"{free} and run the same command to go on, or delete {part.name} next to {output.name}"
    return InputError(write_error(place, error).message, hint)


def _forget(parent: Path, ours: str, part: Path) -> None:
    """Remove what other requests for the same output left, unless they are at work."""
    for old in parent.glob(f"{ours}*"):
        if old != part and old.is_dir():
            with suppress(_Busy, OSError), _alone(old, old):
                shutil.rmtree(old, ignore_errors=True)


class _Busy(InputError):
    """Another process holds the folder."""


@contextmanager
def _alone(part: Path, output: Path) -> Iterator[None]:
    """Hold a lock that dies with the process; where there are none, on Windows, trust."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (part / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"-o {output}: another dit quantize is writing it"
            raise _Busy(message, "wait for it, or choose another folder") from None
        yield
