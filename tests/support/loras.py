"""Random LoRA files for tiny pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = ("to_q", "to_v", "to_out.0", "ff.net.2")
RANK = 2


def layers(network: Any) -> dict[str, Any]:
    """Some linear layers of a transformer, by name."""
    import torch

    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("transformer_blocks.") and name.endswith(LAYERS)
    }


def tensors(
    network: Any, seed: int = 0, down: str = "lora_A.weight", up: str = "lora_B.weight", prefix: str = ""
) -> dict[str, Any]:
    """Random LoRA tensors of rank ``RANK`` for ``layers(network)``."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    made = {}
    for name, module in layers(network).items():
        rows, columns = module.weight.shape
        made[f"{prefix}{name}.{down}"] = torch.randn(RANK, columns, generator=noise)
        made[f"{prefix}{name}.{up}"] = torch.randn(rows, RANK, generator=noise)
    return made


def write(folder: Path, network: Any, name: str = "style.safetensors", **options: Any) -> Path:
    """A LoRA file as diffusers writes it; ``options`` go to ``tensors``."""
    from safetensors.torch import save_file

    path = folder / name
    save_file(tensors(network, **{"prefix": "transformer."} | options), path)
    return path
