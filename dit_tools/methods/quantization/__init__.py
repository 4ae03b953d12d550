"""Schemes of ``dit quantize --scheme``: how a linear layer's weight becomes packed tensors.

Contract (``_base.Scheme``): ``layout(rows, columns)`` says how it will lie in the file, before any
weight is read; ``pack(weight, layout, seen)`` gives the tensors of that layout. ``calibration``
names the inputs that the scheme wants to have seen, or is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dit_tools.core.registry import MethodInfo
from dit_tools.nn.packed_layout import Layout

Array = Any
"""A torch tensor: schemes name no library at the top of their files."""


@dataclass(frozen=True)
class ActivationStats:
    """What calibration saw of a layer's input x (tokens, columns).

    ``moments``: E[x x^T] (columns, columns), for schemes that read them. ``peak``: largest |x| of
    each column (columns,). ``sample``: some of the tokens (n, columns). ``weight`` and ``scale``
    (rows, groups): the weight after fine-tuning of the whole network, to be rounded to the nearest
    at that scale. ``half`` (columns,) is the peak of every second prompt, ``others`` (n, columns)
    tokens of the rest: what was chosen by some prompts can be judged on others.
    """

    moments: Array
    peak: Array
    sample: Array = None
    weight: Array = None
    scale: Array = None
    half: Array = None
    others: Array = None


class Scheme:
    """A way to pack weights.

    ``rowwise``: rows are packed alone, so that a few may be given. ``moments``: ``pack`` reads
    ``ActivationStats.moments``, which are dear to collect.
    """

    info: ClassVar[MethodInfo]
    rowwise: ClassVar[bool] = False
    moments: ClassVar[bool] = False

    @property
    def calibration(self) -> str:
        """``trajectory``, ``random`` (see ``weights.calibrate``) or empty."""
        return ""

    @property
    def tuning(self) -> bool:
        """Whether weights are fine-tuned together before they are packed (``weights.finetune``)."""
        return False

    def layout(self, rows: int, columns: int) -> Layout:
        """How a weight (rows, columns) will lie. Raises ValueError where the scheme has no way."""
        raise NotImplementedError

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """The tensors of ``layout`` for a weight (rows, columns) in float32.

        ``seen`` is given where ``calibration`` asks for it and the layer was called.
        """
        raise NotImplementedError


BLOCK_WEIGHTS = 1 << 16
"""Weights of a layer that are worked on at a time, so that copies of it are small."""


def by_rows(weight: Array, layout: Layout, pack: Callable[[Array, Layout], dict[str, Array]]) -> dict[str, Array]:
    """The tensors of a layer whose rows are packed alone, some at a time.

    ``pack(rows of the weight, their layout)`` gives tensors with a row for each of them.
    """
    made = Rows(layout.rows)
    for rows in row_blocks(layout):
        made.put(rows, pack(weight[rows], replace(layout, rows=rows.stop - rows.start)))
    return made.tensors


class Rows:
    """Tensors that are filled some rows at a time, allocated once, so that memory stays whole."""

    def __init__(self, count: int):
        self._count = count
        self.tensors: dict[str, Array] = {}

    def put(self, rows: slice, some: Mapping[str, Array]) -> None:
        """Copy ``some``, tensors with those rows."""
        for key, tensor in some.items():
            if key not in self.tensors:
                self.tensors[key] = tensor.new_empty((self._count, *tensor.shape[1:]))
            self.tensors[key][rows] = tensor


def row_blocks(layout: Layout) -> Iterator[slice]:
    """Slices of a weight's rows of about ``BLOCK_WEIGHTS`` weights."""
    step = max(BLOCK_WEIGHTS // layout.columns, 1)
    for start in range(0, layout.rows, step):
        yield slice(start, min(start + step, layout.rows))


def group_of(group: int, columns: int) -> int:
    """The scale group of a row: 0, one scale, where the row is not longer than a group."""
    return group if group < columns else 0
