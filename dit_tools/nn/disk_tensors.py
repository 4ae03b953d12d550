"""Tensors that lie in a file while they are not worked on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

HELD = 1 << 22
"""Bytes that are kept in memory before there is a file."""


class DiskTensors:
    """Lists of tensors by key, in a nameless file of the system's temporary folder.

    Unlike with a memory map, what was read counts for the process only while it is held. A list
    has the shapes and types that it was first put away with. On the CPU. Raises OSError that names
    the folder when writing fails.
    """

    def __init__(self) -> None:
        self._file: Any = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115
        self._places: dict[Any, tuple[int, list[tuple[torch.Size, torch.dtype]]]] = {}
        self._end = 0

    def __enter__(self) -> DiskTensors:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def put(self, key: Any, tensors: Sequence[Tensor]) -> None:
        """Put a list of tensors away, in the place of the last one of this key."""
        kinds = [(tensor.shape, tensor.dtype) for tensor in tensors]
        start, before = self._places.setdefault(key, (self._end, kinds))
        if before != kinds:
            raise ValueError(f"{key}: was put away as {before}")
        try:
            self._file.seek(start)
            for tensor in tensors:
                self._file.write(tensor.contiguous().numpy())
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
        self._end = max(self._end, self._file.tell())

    def take(self, key: Any) -> list[Tensor]:
        """Copies of what ``put`` put away. Raises KeyError when that was nothing."""
        start, kinds = self._places[key]
        self._file.seek(start)
        found = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
        for tensor in found:
            if self._file.readinto(tensor.numpy()) != tensor.nbytes:
                raise OSError("the temporary file was cut off")
        return found
