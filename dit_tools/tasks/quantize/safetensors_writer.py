"""A safetensors file written tensor by tensor, with no more than one in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.models.loading.validation import BITS

ROOM = 4096
"""Bytes of the header kept free for what is known only when everything is written."""

Entry = tuple[str, tuple[int, ...]]
"""safetensors type and shape."""


def nbytes(entry: Entry) -> int:
    """Bytes of a tensor in the file."""
    return math.prod(entry[1]) * BITS[entry[0]] // 8


class SafetensorsWriter:
    """Writes the tensors of ``entries`` in their order, each in one or more pieces.

    ``done``: how many of them an interrupted writer of the same entries has written to ``path``.
    Raises OSError where the disk is full, ValueError where pieces do not add up.
    """

    def __init__(self, path: Path, entries: Mapping[str, Entry], done: int = 0):
        self._path, self._entries = path, dict(entries)
        self._left = [(name, nbytes(entry)) for name, entry in entries.items()]
        self._header = len(self._text({})) + ROOM
        self._header += -self._header % 8
        if done and not self._continues(path):
            raise ValueError(f"{path.name} was begun for other tensors")
        self._file = path.open("r+b" if done else "wb")
        self._file.write(self._padded({}))
        self._file.seek(sum(size for _, size in self._left[:done]), 1)
        self._file.truncate()
        del self._left[:done]

    def _continues(self, path: Path) -> bool:
        """Whether a file holds the same tensors, described or not."""
        with path.open("rb") as file:
            length, text = file.read(8), file.read(self._header)
        try:
            table = json.loads(text)
        except ValueError:
            return False
        wanted = json.loads(self._text({}))
        same = {**table, "__metadata__": 0} == {**wanted, "__metadata__": 0}
        return same and length == self._header.to_bytes(8, "little")

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def write(self, name: str, tensor: Any) -> None:
        """Append a torch tensor, whole rows of ``name``, which must be the next in order."""
        import torch

        while self._left and self._left[0][1] == 0:
            self._left.pop(0)
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        if not self._left or self._left[0][0] != name or data.nbytes > self._left[0][1]:
            raise ValueError(f"{name} is not what comes next")
        self._file.write(data)
        self._left[0] = (name, self._left[0][1] - data.nbytes)

    def flush(self) -> None:
        """Bring everything to the disk, so that neither a kill nor a power cut loses it."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Flush to disk. Raises ValueError when something is lacking."""
        if any(left for _, left in self._left):
            raise ValueError("not every tensor was written")
        self._file.flush()

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Put texts into the header, leaving out the last ones where there is no space."""
        kept = dict(metadata)
        while len(self._text(kept)) > self._header:
            kept.popitem()
        self._file.seek(0)
        self._file.write(self._padded(kept))
        self._file.flush()

    def _text(self, metadata: Mapping[str, str]) -> bytes:
        table: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
        end = 0
        for name, entry in self._entries.items():
            start, end = end, end + nbytes(entry)
            table[name] = {"dtype": entry[0], "shape": entry[1], "data_offsets": [start, end]}
        return json.dumps(table, separators=(",", ":")).encode()

    def _padded(self, metadata: Mapping[str, str]) -> bytes:
        text = self._text(metadata)
        return self._header.to_bytes(8, "little") + text + b" " * (self._header - len(text))
