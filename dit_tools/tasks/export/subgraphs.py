"""A transformer's graph in four pieces, so that ONNX Runtime can skip its blocks.

``transformer.embed.onnx`` gives what enters block 1 and what is handed to the blocks next to it,
``first`` block 1, ``rest`` the other blocks, ``final`` the output. Run one after the other they are
``transformer.onnx``; ``models.onnx_pieces`` runs them. Each is a part of one traced graph, so
its weights are the same byte ranges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dit_tools.core.blocks import Block
from dit_tools.models.backends.onnx_split import (
    BLOCKS,
    ENTERED,
    FIRST,
    GIVEN,
    LAST,
    OUTPUT,
    PIECES,
    flatten_tree,
    subgraph_file,
)
from dit_tools.nn.blocks import entering

WHOLE = "transformer.whole"
"""Name of the traced graph that is cut; it does not stay."""


@contextlib.contextmanager
def trace_tensors(chain: Sequence[Block]) -> Iterator[dict[str, Any]]:
    """Inside, the dictionary holds what passed the ends of the blocks at the last call, by name."""
    from dit_tools.nn.hooks import around_forward

    found: dict[str, Any] = {}
    ends = (chain[0], chain[-1])

    def around(position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if position == 0:
            found.clear()
            found.update(flatten_tree(ENTERED, entering(ends[0], args, kwargs)))
            streams = {id(value) for value in found.values()}
            beside = [v for v in _tensors((*args, kwargs)) if id(v) not in streams]
            found.update({f"{GIVEN}.{i}": value for i, value in enumerate(beside)})
        output = compute()
        found.update(flatten_tree((FIRST, LAST)[position], output))
        return output

    with around_forward([block.module for block in ends], around, "dit_pieces"):
        yield found


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in nested tuples and dictionaries; numbers, which a trace has as tensors, not."""
    if isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
    elif getattr(value, "ndim", 0):
        yield value


def names_of(chain: Sequence[Block], call: Callable[[], Any]) -> list[str]:
    """Names of what is cut at, in the order in which ``mark_blocks`` gives it; ``call`` runs it once."""
    import torch

    with torch.no_grad(), trace_tensors(chain) as found:
        call()
        return list(found)


@contextlib.contextmanager
def mark_blocks(module: Any, chain: Sequence[Block]) -> Iterator[Any]:
    """``module``, which calls the blocks ``chain``, with what is cut at as further outputs."""
    import torch

    with trace_tensors(chain) as found:

        class Marked(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module

            def forward(self, **inputs: Any) -> Any:
                output = self.inner(**inputs)
                return (output, *found.values())

        yield Marked()


def cut_graph(whole: Path, names: Iterable[str], chain: Sequence[Block]) -> list[Path]:
    """Cut the graph ``whole``, whose further outputs are ``names``; returns the pieces' paths.

    ``whole`` is removed; a file of weights next to it stays, for the pieces read it.
    """
    import onnx

    model = onnx.load(whole, load_external_data=False)
    groups = {kind: [n for n in names if n.partition(".")[0] == kind] for kind in (ENTERED, GIVEN, FIRST, LAST)}
    inputs = [entry.name for entry in model.graph.input]
    outputs = {"first": groups[FIRST], "rest": groups[LAST], "final": [OUTPUT]}
    before = {"first": groups[ENTERED], "rest": groups[FIRST], "final": groups[LAST]}
    parts = {piece: _piece(model, inputs + groups[GIVEN] + before[piece], outputs[piece]) for piece in outputs}
    read = {entry.name for part in parts.values() for entry in part.graph.input}
    given = [name for name in groups[GIVEN] if name in read]
    parts["embed"] = _piece(model, inputs, groups[ENTERED] + given)
    for piece, part in parts.items():
        for key, value in ((BLOCKS, len(chain)), ("output", chain[0].output)):
            part.metadata_props.add(key=key, value=str(value))
        onnx.save(part, subgraph_file(whole.parent, piece))
    whole.unlink()
    return [subgraph_file(whole.parent, piece) for piece in PIECES]


def _piece(model: Any, known: list[str], outputs: list[str]) -> Any:
    """The part of a graph that makes ``outputs`` of ``known``; those not needed are left out."""
    import onnx

    graph, stop = model.graph, set(known)
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    wanted, open_ends, kept = set(), list(outputs), set()
    while open_ends:
        name = open_ends.pop()
        if name in wanted or not name:
            continue
        wanted.add(name)
        if name in makers and (name not in stop or name in outputs):
            kept.add(makers[name])
            open_ends += graph.node[makers[name]].input
    types = {entry.name: entry for entry in (*graph.input, *graph.output)}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for field in ("node", "input", "output", "initializer", "value_info"):
        del getattr(made.graph, field)[:]
    made.graph.node.extend(node for i, node in enumerate(graph.node) if i in kept)
    given = [name for name in known if name in wanted and name not in outputs]
    made.graph.input.extend(_free(types[name], name not in makers) for name in given)
    made.graph.output.extend(_free(types[name], name == OUTPUT) for name in outputs)
    made.graph.initializer.extend(i for i in graph.initializer if i.name in wanted)
    return made


def _free(entry: Any, own: bool) -> Any:
    """What is said of an input or output; of one that was cut open, its type and axes alone."""
    made = type(entry)()
    made.CopyFrom(entry)
    if not own:
        for axis in made.type.tensor_type.shape.dim:
            axis.Clear()
    return made
