"""Which layers are packed, how, and how large the file gets: decided before weights are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.methods.quantization import Scheme
from dit_tools.methods.quantization.rtn import Rtn
from dit_tools.models.loading import quantized, validation
from dit_tools.nn.packed_layout import Layout
from dit_tools.tasks.quantize.safetensors_writer import Entry, nbytes

INSIDE = re.compile(r"(\w*blocks|layers|\w*refiner)\.\d+\.")
"""Names of layers inside of a transformer's blocks."""
MODULATION = re.compile(r"\bnorm\w*\.linear|adaLN|\bmod\b|modulation|_mod\.")
"""adaLN layers: half of a DiT's weights and a hundredth of its work; their output scales all."""
SENSITIVE = re.compile(r"(pos_embed|patch|x_embedder|img_in\b|time|\bt_embedder|proj_out|final|norm_out|guidance_emb)")
"""Outside of the blocks: patches, times and the last layer stay as they are."""
NEAREST = Rtn(bits=8, group=0, zero=False, act="0", clip="none")
"""For layers outside of the blocks and adaLN: eight bits a weight, a scale a row."""
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Layer:
    """A linear layer: how its weight will lie; where it stays as it is, ``layout`` is None.

    ``why``: kept (``--keep``), sensitive, small, plain (packed by the scheme) or fallback.
    ``file`` holds the weight now, as ``dtype``; ``packer`` packs it.
    """

    name: str
    rows: int
    columns: int
    dtype: str
    file: Path
    layout: Layout | None
    why: str
    packer: Scheme

    @property
    def nbytes(self) -> int:
        """Bytes of the weight in the new file."""
        if self.layout is not None:
            return self.layout.nbytes
        return nbytes((self.dtype, (self.rows, self.columns)))

    def tensors(self) -> dict[str, Entry]:
        """Name -> type and shape in the new file."""
        if self.layout is None:
            return {f"{self.name}.weight": (self.dtype, (self.rows, self.columns))}
        return {f"{self.name}.{key}": entry for key, entry in self.layout.tensors().items()}


@dataclass(frozen=True)
class Layers:
    """The linear layers of a transformer, and its other tensors as name -> (entry, file)."""

    kind: str
    linear: tuple[Layer, ...]
    others: Mapping[str, tuple[Entry, Path]]

    @property
    def entries(self) -> dict[str, Entry]:
        """The new file's tensors in order."""
        made = {name: entry for name, (entry, _) in self.others.items()}
        for layer in self.linear:
            made |= layer.tensors()
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of the new file's tensors."""
        return sum(map(nbytes, self.entries.values()))

    @property
    def numbers(self) -> int:
        """Weights of the network."""
        others = sum(math.prod(entry[1]) for entry, _ in self.others.values())
        return others + sum(layer.rows * layer.columns for layer in self.linear)

    @property
    def ratio(self) -> float:
        """Bytes as a share of the same network in float32."""
        return self.nbytes / (4 * self.numbers)

    @property
    def largest(self) -> int:
        """Weights of the largest layer."""
        return max((layer.rows * layer.columns for layer in self.linear), default=0)

    def packed(self) -> dict[str, Layout]:
        """Name -> layout of what is packed."""
        return {layer.name: layer.layout for layer in self.linear if layer.layout is not None}

    def packed_by(self, packers: Mapping[str, Scheme]) -> Layers:
        """The same with other schemes for some layers."""
        linear = []
        for layer in self.linear:
            packer = packers.get(layer.name, layer.packer)
            changed = layer.name in packers
            layout = packer.layout(layer.rows, layer.columns) if changed else layer.layout
            linear.append(replace(layer, layout=layout, packer=packer))
        return replace(self, linear=tuple(linear))


def find_layers(folder: Path, files: list[Path], scheme: Scheme, keep: list[re.Pattern[str]]) -> Layers:
    """The layers of the transformer of a model's folder, whose weights lie in ``files``.

    Raises UnsupportedError for networks that cannot be packed, ModelError for damaged files,
    UsageError when nothing is left to pack.
    """
    kind = str(validation.components(folder)[quantized.PART][1])
    there = {n: (e, path) for path in files for n, e in validation.header(path).items()}
    shapes, linears = _network(folder / quantized.PART, kind)
    _check_names(files[0], shapes, there)
    linear = []
    for name in linears:
        entry, path = there.pop(f"{name}.weight")
        linear.append(_layer(name, entry, path, scheme, keep))
    others = {n: ((e["dtype"], tuple(e["shape"])), path) for n, (e, path) in there.items()}
    if not any(layer.layout for layer in linear):
        raise UsageError("--keep: keeps every layer", "leave some to pack")
    return Layers(kind, tuple(linear), others)


def _network(part: Path, kind: str) -> tuple[dict[str, list[int]], list[str]]:
    """Name -> shape of all weights, and the names of the linear layers, without weights."""
    from torch import nn

    module = quantized.empty(part, kind)
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    owners: dict[int, int] = {}
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            owners[id(layer.weight)] = owners.get(id(layer.weight), 0) + 1
    linears = [
        name for name, layer in module.named_modules() if type(layer) is nn.Linear and owners[id(layer.weight)] == 1
    ]
    return shapes, linears


def _check_names(path: Path, shapes: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    for name, (entry, file) in there.items():
        if entry["dtype"] not in FLOATS:
            raise UnsupportedError(f"{file}: {name} is {entry['dtype']}: quantized already", "give the plain model")
        if name not in shapes or list(entry["shape"]) != shapes[name]:
            raise UnsupportedError(
                f"{file}: {name[:80]} is not a tensor of the network as diffusers has it now",
                "load the model with diffusers and save it again",
            )
    lacking = sorted(shapes.keys() - there)
    if lacking:
        raise ModelError(f"{path}: lacks {len(lacking)} tensors, such as {lacking[0]}", validation.DAMAGED)


def pattern(text: str) -> re.Pattern[str]:
    """A ``--keep`` expression. Raises UsageError."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--keep {text}: {error}", "give a regular expression") from None


def _layer(name: str, entry: Any, path: Path, scheme: Scheme, keep: list[re.Pattern[str]]) -> Layer:
    rows, columns = entry["shape"]
    layout, why = _choice(name, rows, columns, scheme, keep)
    plain = nbytes((entry["dtype"], (rows, columns)))
    if layout is not None and layout.nbytes >= plain:
        layout, why = None, "small"
    packer = NEAREST if why == "fallback" else scheme
    return Layer(name, rows, columns, entry["dtype"], path, layout, why, packer)


def _choice(
    name: str, rows: int, columns: int, scheme: Scheme, keep: list[re.Pattern[str]]
) -> tuple[Layout | None, str]:
    if any(pattern.search(name) for pattern in keep):
        return None, "kept"
    inside = INSIDE.match(name)
    if not inside and SENSITIVE.search(name):
        return None, "sensitive"
    try:
        layout = scheme.layout(rows, columns)
    except ValueError:
        return NEAREST.layout(rows, columns), "fallback"
    if not inside or MODULATION.search(name):
        lower = layout.bits < 8 * layout.length or layout.act
        return (NEAREST.layout(rows, columns), "fallback") if lower else (layout, "plain")
    return layout, "plain"
