"""Calibration of a network that is never in memory whole: its linear layers are read as they run.

First the model is used as calibration wants it, with every linear layer's weight read from its file
for each call and dropped behind it, and the arguments of the network's calls are kept. What a layer
is fed is then found when that layer is about to be packed: the calls are made again up to its
block, where the blocks before it give what they gave the last time, which is all that is kept of
them. In memory at a time: one weight in float32, the outputs of one block per call, and the sums
over the inputs of a few layers, of one where its moments are as large as the largest layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.methods.quantization import ActivationStats
from dit_tools.models.loading import quantized
from dit_tools.models.model import Model
from dit_tools.tasks.quantize import activation_stats
from dit_tools.tasks.quantize.layers import INSIDE, Layer, Layers

ROOM = 1.0
"""Moments that are collected at a time, as a share of the largest layer in float32."""


def load_layerwise(source: Any, layers: Layers) -> Model:
    """The model ``source`` on the CPU in float32, its linear layers without weights of their own.

    Each reads its weight when it is called. Texts and images are coded by the parts as usual.
    """
    from safetensors import safe_open

    from dit_tools.models.loading.load import LoadOptions
    from dit_tools.models.loading.torch_loader import load_torch

    module = quantized.empty(source.path / quantized.PART, layers.kind)
    files = {path for _, path in layers.others.values()} | {layer.file for layer in layers.linear}
    opened = {path: safe_open(path, framework="pt") for path in files}
    state = {name: opened[path].get_tensor(name).float() for name, (_, path) in layers.others.items()}
    module.load_state_dict(state, strict=False, assign=True)
    for layer in layers.linear:
        _read_when_called(module.get_submodule(layer.name), layer, opened[layer.file])
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    wishes = LoadOptions(device="cpu", backend="torch", dtype="float32")
    return load_torch(source, wishes, transformer=module.eval())


def _read_when_called(linear: Any, layer: Layer, file: Any) -> None:
    import torch
    from torch import nn

    # One number that looks like a matrix: its shape, type and device can be asked for.
    hollow = nn.Parameter(torch.zeros(()).expand(layer.rows, layer.columns), requires_grad=False)
    linear.weight = hollow

    def read(module: Any, inputs: Any) -> None:
        weight = file.get_tensor(f"{layer.name}.weight").float()
        module.weight = nn.Parameter(weight, requires_grad=False)

    def drop(module: Any, inputs: Any, output: Any) -> None:
        module.weight = hollow

    linear.register_forward_pre_hook(read)
    linear.register_forward_hook(drop, always_call=True)


class Streamed(Mapping[str, ActivationStats]):
    """What each layer is fed, found when it is asked for; cheap in the order of the layers."""

    def __init__(self, model: Model, layers: Layers, how: str, prompts: Sequence[str], steps: int | None):
        if model.backend != "torch":
            raise UnsupportedError("--scheme: graphs cannot be calibrated", "give the plain model")
        self._root = model.network.module  # type: ignore[attr-defined]
        watched = activation_stats.stats_wanted(layers)
        self._names = {layer.name for layer in watched}
        self._moments = activation_stats.moments_wanted(layers)
        self._groups = list(_groups(watched, ROOM * 4 * layers.largest if self._moments else None))
        self._calls = _Calls(self._root)
        outside = [layer.name for layer in watched if not INSIDE.match(layer.name)]
        with self._calls.recorded() as clock:
            self._found = activation_stats.observe(model, layers, how, prompts, steps, names=outside, clock=clock)

    @property
    def nbytes(self) -> int:
        """Bytes of what is held: outputs of blocks, and what was found of the last layers."""
        found = (vars(seen).values() for seen in self._found.values())
        return self._calls.nbytes + sum(map(_nbytes, (one for many in found for one in many)))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> ActivationStats:
        if name not in self._names:
            raise KeyError(name)
        if name in self._found:
            return self._found[name]
        if not INSIDE.match(name):
            raise KeyError(name)  # never called
        group = next(group for group in self._groups if name in group)
        last = not any(
            _block(other[0]) == _block(name) and other is not group
            for other in self._groups[self._groups.index(group) + 1 :]
        )
        self._found = {key: seen for key, seen in self._found.items() if not INSIDE.match(key)}
        with activation_stats.collect_stats(self._root, group, self._calls.clock, self._moments) as sums:
            self._calls.again(_block(name), keep=last)
        self._found |= activation_stats.stats_of(sums)
        return self._found[name]


def _block(name: str) -> str:
    """``transformer_blocks.3`` of the name of a layer inside of it."""
    found = INSIDE.match(name)
    assert found is not None
    return found.group(0)[:-1]


def _groups(watched: Sequence[Layer], room: float | None) -> Iterator[list[str]]:
    """Layers of a block that are watched together: their moments fill at most ``room`` bytes."""
    group: list[str] = []
    filled = 0
    for layer in watched:
        if not INSIDE.match(layer.name):
            continue
        size = 4 * layer.columns**2
        crowded = room is not None and filled + size > room
        if group and (crowded or _block(group[0]) != _block(layer.name)):
            yield group
            group, filled = [], 0
        group.append(layer.name)
        filled += size
    if group:
        yield group


class _Stop(Exception):
    """The block has run: nothing behind it is wanted."""


class _Calls:
    """The network's calls, and for each list of blocks what the last one of them gave."""

    def __init__(self, root: Any):
        self.root, self.clock, self._call = root, activation_stats.Clock(), 0
        self._calls: list[tuple[Any, Any, float, int]] = []
        self._done: dict[str, int] = {}
        """List -> the last block whose outputs are kept."""
        self._kept: dict[str, dict[int, Any]] = {}
        """List -> call -> output of that block."""

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs that are kept."""
        return sum(_nbytes(one) for kept in self._kept.values() for one in kept.values())

    @contextmanager
    def recorded(self) -> Iterator[activation_stats.Clock]:
        """Inside, calls are noted with what the clock shows."""

        def note(module: Any, args: Any, kwargs: Any) -> None:
            if self.clock.weight:
                self._calls.append((args, kwargs, self.clock.weight, self.clock.prompt))

        handle = self.root.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield self.clock
        finally:
            handle.remove()

    def again(self, block: str, keep: bool) -> None:
        """Make all calls up to the end of ``block``, whose outputs are kept if ``keep``."""
        import torch

        name, _, number = block.rpartition(".")
        if int(number) <= self._done.get(name, -1):
            self._done.pop(name)  # asked for out of order: what is kept comes too late
            self._kept.pop(name)
        kept = self._kept.setdefault(name, {})
        reached = 0

        def end(module: Any, inputs: Any, output: Any) -> None:
            nonlocal reached
            reached += 1
            if keep:  # what the block before it gave in this call is not wanted any more
                kept[self._call] = _copied(output)
            raise _Stop

        handle = self.root.get_submodule(block).register_forward_hook(end)
        try:
            with torch.no_grad(), self._short_cut():
                for i, (args, kwargs, weight, prompt) in enumerate(self._calls):
                    self._call = i
                    self.clock.weight, self.clock.prompt = weight, prompt
                    with suppress(_Stop):
                        self.root(*args, **kwargs)
        finally:
            handle.remove()
        if keep and reached == len(self._calls):
            self._done[name] = int(number)
        elif keep:  # some calls leave it out: from now on these blocks run
            self._done.pop(name, None)
            self._kept.pop(name)

    @contextmanager
    def _short_cut(self) -> Iterator[None]:
        """Inside, blocks up to the last one that is kept give its output."""

        def stub(name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: _copied(self._kept[name][self._call])

        short = {f"{name}.{i}": name for name, done in self._done.items() for i in range(done + 1)}
        blocks = {path: self.root.get_submodule(path) for path in short}
        try:
            for path, name in short.items():
                blocks[path].forward = stub(name)
            yield
        finally:
            for block in blocks.values():
                del block.forward


def _copied(output: Any) -> Any:
    """A block's output that nobody else can change: tensors, or a tuple of them and None."""
    if isinstance(output, tuple | list):
        return type(output)(_copied(one) for one in output)
    return output.clone() if output is not None else None


def _nbytes(value: Any) -> int:
    """Bytes of tensors, alone or in a tuple."""
    if isinstance(value, tuple | list):
        return sum(map(_nbytes, value))
    return getattr(value, "nbytes", 0)
