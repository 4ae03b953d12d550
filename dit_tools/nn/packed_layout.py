"""How a linear layer's weight lies packed in a safetensors file: names, types, shapes. No torch.

Codes of ``bits`` bits are laid along a row, lowest bits first, and every row starts at a byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KINDS = ("int", "fp8", "fp4", "vq")
"""int: uniform; fp8: E4M3; fp4: E2M1; vq: each code names a vector of a codebook."""
SIDE, AREA = 1 << 20, 1 << 32
"""Largest side and number of weights of a layer; the largest in use have 2^28 weights."""


@dataclass(frozen=True)
class Layout:
    """One packed weight (rows, columns) = (out, in).

    ``group`` columns of a row share a scale; 0 is the whole row. ``zero``: a zero point per group,
    else codes are centred. ``act``: bits of activations, quantized per token as they come; 0 leaves
    them alone. ``balance``: a factor per input channel. ``rank``: of a half-precision branch that
    is added. ``length``: weights per code (vq). ``static``: one scale for all activations instead.
    """

    rows: int
    columns: int
    kind: str = "int"
    bits: int = 8
    group: int = 0
    zero: bool = False
    act: int = 0
    balance: bool = False
    rank: int = 0
    length: int = 1
    static: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be, before anything is allocated."""
        wrong = [f.name for f in fields(self) if not _typed(getattr(self, f.name), str(f.type))]
        if wrong:
            raise ValueError(f"{wrong[0]} is not of its type")
        sane = (
            self.kind in KINDS
            and 1 <= self.rows <= SIDE
            and 1 <= self.columns <= SIDE
            and self.rows * self.columns <= AREA
            and 1 <= self.bits <= 8
            and self.bits == {"fp8": 8, "fp4": 4}.get(self.kind, self.bits)
            and 0 <= self.group <= self.columns
            and self.act in (0, 4, 6, 8)
            and 0 <= self.rank <= min(self.rows, self.columns)
            and 1 <= self.length <= self.columns
            and self.columns % self.length == 0
            and (self.kind == "vq" or self.length == 1)
            and not (self.zero and self.kind != "int")
            and not (self.static and not self.act)
        )
        if not sane:
            raise ValueError("its numbers are out of bounds")

    @property
    def codes(self) -> int:
        """Codes in a row."""
        return self.columns // self.length

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return math.ceil(self.columns / self.group) if self.group else 1

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Suffix of a tensor's name -> its safetensors type and shape."""
        made: dict[str, tuple[str, tuple[int, ...]]] = {
            "packed": ("U8", (self.rows, packed_bytes(self.codes, self.bits)))
        }
        if self.kind == "vq":
            made["codebook"] = ("F16", (1 << self.bits, self.length))
        else:
            made["scale"] = ("F16", (self.rows, self.groups))
        if self.zero:
            made["zero"] = ("U8", (self.rows, self.groups))
        if self.balance:
            made["balance"] = ("F16", (self.columns,))
        if self.static:
            made["input_scale"] = ("F16", (1,))
        if self.rank:
            made["down"] = ("F16", (self.rank, self.columns))
            made["up"] = ("F16", (self.rows, self.rank))
        return made

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return sum(math.prod(shape) * (1 if kind == "U8" else 2) for kind, shape in self.tensors().values())

    @property
    def name(self) -> str:
        """In a word, for tables: ``int4 g64``, ``int8 a8``, ``fp8``, ``vq2``."""
        weight = f"vq{self.bits / self.length:g}" if self.kind == "vq" else self.kind
        words = [f"int{self.bits}" if self.kind == "int" else weight]
        for letter, number in (("g", self.group), ("a", self.act), ("r", self.rank)):
            words += [f"{letter}{number}"] if number else []
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Everything but the sides, which the network knows, and what is at its default."""
        plain = {f.name: f.default for f in fields(self)}
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("rows", "columns") and (key in ("kind", "bits") or value != plain[key])
        }

    @classmethod
    def from_json(cls, table: Any, rows: int, columns: int) -> Layout:
        """The inverse of ``to_json``. Raises ValueError for anything else."""
        known = {f.name for f in fields(cls)} - {"rows", "columns"}
        if not isinstance(table, Mapping) or not known >= table.keys():
            raise ValueError("it is not described as dit describes layers")
        return cls(rows, columns, **table)


def _typed(value: Any, kind: str) -> bool:
    return type(value).__name__ == kind


def layout_word(bits: int) -> tuple[int, int]:
    """Codes of ``bits`` bits and bytes that make up the smallest whole number of bytes."""
    shared = math.gcd(8, bits)
    return 8 // shared, bits // shared


def packed_bytes(codes: int, bits: int) -> int:
    """Bytes of a row of codes."""
    count, size = layout_word(bits)
    return math.ceil(codes / count) * size
