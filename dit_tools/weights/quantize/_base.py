"""What a scheme is, and what it may know of a layer's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.registry import MethodInfo
from dit_tools.nn.layouts import Layout

Array = Any
"""A torch tensor: schemes name no library at the top of their files."""


@dataclass(frozen=True)
class Seen:
    """What calibration saw of a layer's input x (tokens, columns).

    ``moments``: E[x x^T] (columns, columns). ``peak``: largest |x| of each column (columns,).
    ``sample``: some of the tokens (n, columns). ``weight`` and ``scale`` (rows, groups): the weight
    after fine-tuning of the whole network, to be rounded to the nearest at that scale. ``half``
    (columns,) is the peak of every second prompt, ``others`` (n, columns) tokens of the rest: what
    was chosen by some prompts can be judged on others.
    """

    moments: Array
    peak: Array
    sample: Array = None
    weight: Array = None
    scale: Array = None
    half: Array = None
    others: Array = None


class Scheme:
    """A way to pack weights. ``rowwise``: rows are packed alone, so that a few may be given."""

    info: ClassVar[MethodInfo]
    rowwise: ClassVar[bool] = False

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

    def pack(self, weight: Array, layout: Layout, seen: Seen | None) -> dict[str, Array]:
        """The tensors of ``layout`` for a weight (rows, columns) in float32.

        ``seen`` is given where ``calibration`` asks for it and the layer was called.
        """
        raise NotImplementedError


def group_of(group: int, columns: int) -> int:
    """The scale group of a row: 0, one scale, where the row is not longer than a group."""
    return group if group < columns else 0
