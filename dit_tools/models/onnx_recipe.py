"""The contract of a family's ONNX export, and the plain way to trace a transformer.

A graph's inputs are what ``models.backends.onnx_network.graph_inputs`` makes of the forward arguments.
Where diffusers' own forward cannot be traced (complex numbers, lists, sizes read as Python numbers) a
recipe holds an equivalent that can; it is in force during the export only, tested against the original.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dit_tools.models.family import Family

LATENTS = {0: "batch", 2: "height", 3: "width"}
TEXT = {0: "batch", 1: "text"}
BATCH = {0: "batch"}


@dataclass(frozen=True)
class Sizes:
    """Sizes of example inputs: images, pixels, text tokens."""

    batch: int
    height: int
    width: int
    text: int


class OnnxRecipe(ABC):
    """How one family's transformer is traced."""

    dynamic: ClassVar[Mapping[str, Mapping[int, str]]]
    """Graph input -> {axis: label} of the axes that stay free; "sample" is the output."""
    fixed_size: ClassVar[bool] = False  # the graph serves one image size only

    @abstractmethod
    def condition(self, family: Family, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Random conditions, numpy, drawn from the ``numpy.random.Generator`` ``draw``."""

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The module to trace: ``forward`` takes the graph's inputs by name, gives one tensor."""
        yield plain_module(transformer)

    def refusal(self, transformer: Mapping[str, Any]) -> str:
        """Why a transformer of this config cannot be traced; empty when it can."""
        return ""


def plain_module(transformer: Any) -> Any:
    """A module that calls ``transformer`` by keyword and gives its output as one tensor."""
    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer

        def forward(self, **inputs: Any) -> Any:
            return self.net(**inputs, return_dict=False)[0]

    return Plain()


def random_states(draw: Any, *shape: int) -> Any:
    """Normal float32 numbers, as text states and pooled vectors are."""
    return draw.standard_normal(shape).astype("float32")


def text_mask(sizes: Sizes, kind: str = "int64") -> Any:
    """A text mask (B, L) whose rows end at different places."""
    import numpy as np

    lengths = [max(sizes.text - 3 * row, 1) for row in range(sizes.batch)]
    return (np.arange(sizes.text)[None] < np.array(lengths)[:, None]).astype(kind)


@contextlib.contextmanager
def replaced_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` inside the block."""
    before = getattr(owner, name)
    own = name in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
