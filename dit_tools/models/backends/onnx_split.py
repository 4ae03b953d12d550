"""A transformer in four graphs that ``dit export --split`` wrote, whose blocks may be skipped.

What passes between them has names: ``entered`` is what enters block 1, ``first`` what leaves it,
``last`` what leaves the last block, ``given.N`` what the blocks are handed next to it. A block that
passes several streams on has ``first.0``, ``first.1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import Block, BlockSpec
from dit_tools.nn.blocks import Tree

PIECES = ("embed", "first", "rest", "final")
"""Graphs that together are the transformer's."""
ENTERED, GIVEN, FIRST, LAST, OUTPUT = "entered", "given", "first", "last", "sample"
BLOCKS = "blocks"
"""Key of the number of blocks in the graphs' metadata; "output" is ``Block.output``."""

MAX_BLOCKS = 10_000
"""Blocks of a transformer: more is a damaged file."""


def subgraph_file(folder: Path, piece: str) -> Path:
    """Where a piece lies."""
    return folder / f"transformer.{piece}.onnx"


def offers(folder: Path) -> frozenset[str]:
    """What the graphs of a folder offer to methods."""
    return frozenset({"stack"} if in_pieces(folder) else ())


def in_pieces(folder: Path) -> bool:
    """Whether a model's folder has its transformer in pieces."""
    return all((folder / f"transformer.{piece}.onnx").exists() for piece in PIECES)


def flatten_tree(prefix: str, tree: Tree) -> dict[str, Any]:
    """A tree's arrays by name."""
    if not isinstance(tree, tuple):
        return {prefix: tree}
    return {f"{prefix}.{i}": item for i, item in enumerate(tree) if item is not None}


class Subgraph:
    """Blocks that are one graph: block 1, or all others. ``around`` may stand in for them."""

    def __init__(self, session: Any, prefix: str):
        self._session, self._prefix = session, prefix
        self.inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]
        self.around: Callable[..., Tree] | None = None

    def __call__(self, values: Mapping[str, Array], entered: Tree, output: int | None) -> Tree:
        """What leaves the blocks, of what ``entered`` them; ``values`` are all arrays so far."""
        compute = partial(self._tree, values)
        if self.around is None:
            return compute()
        if output is None:
            return self.around(compute, (), {"hidden_states": entered})
        streams = {"hidden_states": entered[output], "encoder_hidden_states": entered[1 - output]}
        return self.around(compute, (), streams)

    @contextmanager
    def hooked(self, around: Callable[..., Tree]) -> Iterator[None]:
        """Inside the context ``around(compute, args, kwargs)`` stands in for the blocks."""
        self.around = around
        try:
            yield
        finally:
            self.around = None

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Name -> array of what the graph gives."""
        made = self._session.run(None, {name: values[name] for name in self.inputs})
        return dict(zip(self.outputs, made, strict=True))

    def _tree(self, values: Mapping[str, Array]) -> Tree:
        return unflatten_tree(self._prefix, self.run(values))


def unflatten_tree(prefix: str, values: Mapping[str, Array]) -> Tree:
    """The tree that ``flatten_tree`` took apart; a stream that is not there is None."""
    if prefix in values:
        return values[prefix]
    return tuple(values.get(f"{prefix}.{i}") for i in range(2))


class Subgraphs:
    """The four graphs as one network. ``open_sampler`` opens one; all are opened here.

    Raises KeyError and ValueError for graphs that are no pieces of one transformer.
    """

    def __init__(self, open_sampler: Callable[[Path], Any], folder: Path):
        sessions = {piece: open_sampler(subgraph_file(folder, piece)) for piece in PIECES}
        facts = sessions["embed"].get_modelmeta().custom_metadata_map
        self.count = int(facts[BLOCKS])
        self.output = {"None": None, "0": 0, "1": 1}[facts["output"]]
        if not 2 <= self.count <= MAX_BLOCKS:
            raise ValueError(f"{self.count} blocks")
        self._embed, self._final = (Subgraph(sessions[name], name) for name in ("embed", "final"))
        self._first, self._rest = Subgraph(sessions["first"], FIRST), Subgraph(sessions["rest"], LAST)

    def __call__(self, feeds: Mapping[str, Array]) -> Array:
        """The raw output for the graph's inputs by name."""
        values = {**feeds}
        values |= self._embed.run(values)
        for prefix, piece in ((ENTERED, self._first), (FIRST, self._rest)):
            made = piece(values, unflatten_tree(prefix, values), self.output)
            values |= flatten_tree(LAST if piece is self._rest else FIRST, made)
        return self._final.run(values)[OUTPUT]

    def blocks(self) -> list[Block]:
        """As many as the transformer has: the first, and the others, which share one module."""
        spec = BlockSpec(output=self.output)
        modules = [self._first] + [self._rest] * (self.count - 1)
        return [Block(i, f"block {i}", module, spec) for i, module in enumerate(modules)]
