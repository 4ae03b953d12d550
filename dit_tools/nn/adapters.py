"""Parameters next to a frozen transformer: trained, saved, and put on a network again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from dit_tools.core.blocks import Block
from dit_tools.core.errors import UnsupportedError

BIASES = (".bias", "scale_shift_table")
CLASSES = "class_embedder"

Tensors = dict[str, torch.Tensor]


class Attached(Protocol):
    """What an attached adapter gives. The network keeps its own weights and names."""

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in a fixed order; nothing else of the network has gradients."""
        ...

    def tensors(self) -> Tensors:
        """What is saved, float32, on the CPU."""
        ...


def linears(blocks: Sequence[Block], which: str) -> dict[str, nn.Linear]:
    """Linear layers inside the blocks by name: ``attention``, or all but those of norms.

    Raises UnsupportedError when there are none.
    """
    found = {}
    for name, block, module in _linears(blocks):
        inside = name.removeprefix(f"{block.name}.").split(".")
        attention = any(inside[0] == a.attribute for a in block.spec.attention)
        norm = any("norm" in word or "adaLN" in word for word in inside)
        if attention if which == "attention" else not norm:
            found[name] = module
    if not found:
        raise UnsupportedError("the model has no linear layers in blocks to adapt", "choose another model")
    return found


def _linears(blocks: Sequence[Block]) -> Iterator[tuple[str, Block, nn.Linear]]:
    for block in blocks:
        for name, module in block.module.named_modules():
            if isinstance(module, nn.Linear):
                yield f"{block.name}.{name}", block, module


class PeftLora:
    """LoRA by peft."""

    def __init__(self, network: Any, blocks: Sequence[Block], rank: int, alpha: float, which: str, seed: int):
        from peft import LoraConfig, inject_adapter_in_model

        names = linears(blocks, which)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  peft takes any number
            target_modules="|".join(re.escape(name) for name in names),
        )
        network.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, network)
        self.network, self.factor = network, alpha / rank

    def parameters(self) -> list[nn.Parameter]:
        """``A`` and ``B`` of every layer."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def tensors(self) -> Tensors:
        """``transformer.LAYER.lora_A.weight`` (rank, in) and ``lora_B`` (out, rank)."""
        from peft import get_peft_model_state_dict

        made = {}
        for name, tensor in get_peft_model_state_dict(self.network).items():
            scaled = tensor.detach().float() * (self.factor if "lora_B" in name else 1.0)
            made[f"transformer.{name}"] = scaled.cpu().contiguous()
        return made


class Tuned:
    """Biases, norms and class embeddings in place, and a hooked scale on each sub-layer."""

    def __init__(self, network: Any, blocks: Sequence[Block], scales: bool):
        network.requires_grad_(False)
        self.own = dict(_tunable(network))
        if not self.own:
            raise UnsupportedError(f"{type(network).__name__} has neither biases nor norms", "choose another adapter")
        self.before = {name: p.detach().clone() for name, p in self.own.items()}
        for parameter in self.own.values():
            parameter.requires_grad_(True)
        self.scales: dict[str, nn.Parameter] = {}
        for name, block, layer in _linears(blocks) if scales else ():
            if any(name.endswith(f".{end}") for end in block.spec.residual):
                scale = nn.Parameter(torch.ones(layer.out_features, device=layer.weight.device))
                self.scales[name] = scale
                layer.register_forward_hook(_times(scale))

    def parameters(self) -> list[nn.Parameter]:
        """Those of the network, then the scales."""
        return [*self.own.values(), *self.scales.values()]

    def tensors(self) -> Tensors:
        """``delta.NAME``: what was added to a parameter; ``gamma.LAYER``: the scale (out)."""
        made = {f"delta.{name}": p.detach().float() - self.before[name].float() for name, p in self.own.items()}
        made |= {f"gamma.{name}": scale.detach().float() for name, scale in self.scales.items()}
        return {name: tensor.cpu().contiguous() for name, tensor in made.items()}


def _times(scale: nn.Parameter) -> Any:
    return lambda _module, _inputs, output: output * scale.to(output.dtype)


def _tunable(network: Any) -> Iterator[tuple[str, nn.Parameter]]:
    norms = {name for name, module in network.named_modules() if "norm" in type(module).__name__.lower()}
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0]
        if name.endswith(BIASES) or owner in norms or CLASSES in name:
            yield name, parameter


class Bottleneck(nn.Module):
    """``a y + b + U relu(V x)`` of a layer's input ``x`` and output ``y``."""

    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs)))
        if width:
            self.down = nn.Parameter(torch.empty(width, inputs))
            self.up = nn.Parameter(torch.zeros(outputs, width))
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.width, self.strength = width, 1.0

    def hook(self, _module: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """A forward hook."""
        x, s, kind = inputs[0], self.strength, output.dtype
        made = output * (1 + s * (self.scale - 1)).to(kind) + (s * self.shift).to(kind)
        if self.width:
            narrow = functional.relu(functional.linear(x, self.down.to(x.dtype)))
            made = made + functional.linear(narrow, (s * self.up).to(narrow.dtype))
        return made


class Scaled:
    """A ``Bottleneck`` hooked to each layer."""

    def __init__(self, network: Any, blocks: Sequence[Block], width: int, which: str, seed: int):
        network.requires_grad_(False)
        self.layers: dict[str, Bottleneck] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name, layer in linears(blocks, which).items():
                made = Bottleneck(layer.in_features, layer.out_features, width)
                self.layers[name] = made.to(layer.weight.device)
                layer.register_forward_hook(self.layers[name].hook)

    def parameters(self) -> list[nn.Parameter]:
        """Of every layer in order."""
        return [p for layer in self.layers.values() for p in layer.parameters()]

    def tensors(self) -> Tensors:
        """``LAYER.scale``, ``LAYER.shift``, ``LAYER.down``, ``LAYER.up``."""
        return {
            f"{name}.{part}": tensor.detach().float().cpu().contiguous()
            for name, layer in self.layers.items()
            for part, tensor in layer.named_parameters()
        }


# putting a trained one on a network --------------------------------------------------------------


def put(network: Any, tensors: Mapping[str, torch.Tensor], strength: float) -> int:
    """Put what ``Tuned`` or ``Scaled`` saved on a network; the number of layers changed.

    ``strength`` 0 leaves the network as it is, 1 gives what was trained. Raises ValueError naming
    the tensor that does not fit.
    """
    if any(name.startswith(("delta.", "gamma.")) for name in tensors):
        return _merge(network, tensors, strength)
    return _hook(network, tensors, strength)


@torch.no_grad()
def _merge(network: Any, tensors: Mapping[str, torch.Tensor], strength: float) -> int:
    parameters, changed = dict(network.named_parameters()), 0
    for kind in ("delta.", "gamma."):  # a scale multiplies the new bias as well
        for name, tensor in tensors.items():
            if not name.startswith(kind):
                continue
            target = name.removeprefix(kind)
            if kind == "delta.":
                found = [parameters.get(target)]
                same = found[0] is not None and found[0].shape == tensor.shape
            else:
                found = [parameters.get(f"{target}.{part}") for part in ("weight", "bias")]
                same = found[0] is not None and tensor.shape == found[0].shape[:1]
            if not same:
                raise ValueError(f"{name} does not fit")
            for p in (p for p in found if p is not None):
                p.copy_(_changed(p.float(), tensor.to(p.device).float(), kind, strength))
            changed += bool((tensor != (0 if kind == "delta." else 1)).any())
    return changed


def _changed(value: torch.Tensor, by: torch.Tensor, kind: str, strength: float) -> torch.Tensor:
    if kind == "delta.":
        return value + strength * by
    factor = 1 + strength * (by - 1)
    return value * (factor[:, None] if value.ndim == 2 else factor)


def _hook(network: Any, tensors: Mapping[str, torch.Tensor], strength: float) -> int:
    modules, parts = dict(network.named_modules()), {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        parts.setdefault(layer, {})[part] = tensor
    changed = 0
    for name, found in parts.items():
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is no linear layer of it")
        down = found.get("down")
        made = Bottleneck(layer.in_features, layer.out_features, 0 if down is None else len(down))
        if {k: v.shape for k, v in made.named_parameters()} != {k: v.shape for k, v in found.items()}:
            raise ValueError(f"{name} does not fit")
        made.load_state_dict(found)
        made.strength = strength
        made.requires_grad_(False).to(layer.weight.device)
        if strength:
            layer.register_forward_hook(made.hook)
        still = (made.scale == 1).all() and (made.shift == 0).all()
        changed += not (still and (down is None or bool((found["up"] == 0).all())))
    return changed
