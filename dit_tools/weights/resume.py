"""Going on after a kill: the hidden folder of a request keeps what was learned and written.

Its name is a fingerprint of model, scheme and options, so that the same command finds it. It goes
away with any error, becomes the output when all is done, and stays after Ctrl-C, SIGTERM, SIGKILL
or a power cut.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dit_tools.batch.atomic import PREFIX, write_error
from dit_tools.core.errors import InputError
from dit_tools.exporting import _folder
from dit_tools.weights.quantize._base import Seen

ROWS, SEEN, BITS, LOCK = "rows.ndjson", "seen.safetensors", "bits.json", "lock"


class Work:
    """The hidden folder. ``rows``: lines of the table of the layers that are written."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, []
        with suppress(OSError, ValueError):
            for line in (folder / ROWS).read_text(encoding="utf-8").splitlines():
                self.rows.append(json.loads(line))  # the last line may be cut off

    def add(self, row: Mapping[str, Any]) -> None:
        """Note that a layer is written; its bytes must be on their way to the disk already."""
        if not self.rows:
            (self.folder / ROWS).unlink(missing_ok=True)
        self.rows.append(dict(row))
        with (self.folder / ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def keep(self, seen: Mapping[str, Seen], bits: Mapping[str, int] | None) -> None:
        """Store what calibration saw and which bits were chosen."""
        from safetensors.torch import save_file

        fields = ("moments", "peak", "sample", "weight", "scale", "half", "others")
        tensors = {
            f"{name}/{key}": getattr(one, key).contiguous()
            for name, one in seen.items() for key in fields if getattr(one, key) is not None
        }  # fmt: skip
        part = self.folder / f"{SEEN}.part"
        save_file(tensors, part)
        (self.folder / BITS).write_text(json.dumps(bits), encoding="utf-8")
        part.rename(self.folder / SEEN)

    def kept(self) -> tuple[dict[str, Seen], dict[str, int] | None] | None:
        """What ``keep`` stored, or None."""
        if not (self.folder / SEEN).is_file():
            return None
        from safetensors.torch import load_file

        found: dict[str, dict[str, Any]] = {}
        for name, tensor in load_file(self.folder / SEEN).items():
            layer, _, key = name.rpartition("/")
            found.setdefault(layer, {})[key] = tensor
        bits = json.loads((self.folder / BITS).read_text(encoding="utf-8"))
        return {name: Seen(**fields) for name, fields in found.items()}, bits

    def tidy(self) -> None:
        """Remove what the output does not need."""
        for name in (ROWS, SEEN, BITS, LOCK):
            (self.folder / name).unlink(missing_ok=True)


@contextmanager
def workplace(output: Path, overwrite: bool, request: Mapping[str, Any]) -> Iterator[Work]:
    """The hidden folder beside ``output`` that becomes it when the block succeeds.

    ``request``: everything that decides what is written. Raises InputError where another process
    is at the same work, or where writing fails.
    """
    text = json.dumps({**request, "output": str(output.absolute())}, sort_keys=True)
    part = output.parent / f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        part.mkdir(exist_ok=True)
        with _alone(part, output):
            work = Work(part)
            yield work
            work.tidy()
            _folder.settle(part, output, overwrite)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise write_error(output, error) from error
    except Exception as error:
        if not isinstance(error, _Busy):
            shutil.rmtree(part, ignore_errors=True)
        raise


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
