"""Sanity of a model's ``config.json``: no network is built from absurd dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError

PARAMETER_LIMIT = 10**12
"""Parameters of the largest network that is built; the largest diffusion model in use has 8e10."""

WIDTHS = (
    "hidden_size",
    "d_model",
    "dim",
    "inner_dim",
    "n_embd",
    "embed_dim",
    "caption_channels",
    "cross_attention_dim",
    "joint_attention_dim",
    "projection_dim",
    "intermediate_size",
    "d_ff",
    "ffn_dim",
    "in_channels",
    "out_channels",
    "latent_channels",
    "caption_projection_dim",
)
DEPTHS = (
    "num_layers",
    "num_single_layers",
    "num_hidden_layers",
    "num_decoder_layers",
    "n_layers",
    "num_refiner_layers",
    "depth",
    "layers_per_block",
)
TABLES = ("vocab_size", "max_position_embeddings", "num_embeds_ada_norm", "pos_embed_max_size")


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError when ``config`` describes a network of more than 10^12 parameters."""
    for name, value in _numbers(config):
        if value < 0 and name in WIDTHS + DEPTHS + TABLES:
            raise ModelError(f"{path}: {name} is negative", "this is no model's config")
    count = parameters(config)
    if count > PARAMETER_LIMIT:
        raise ModelError(
            f"{path}: describes a network of some {count:.0e} parameters".replace("e+", "e"),
            "this is no model's config; the limit is 1e12",
        )


def parameters(config: Mapping[str, Any]) -> float:
    """A rough count: ``12 depth width^2``, tables, positions and convolutions."""
    numbers = {name: value for name, value in _numbers(config)}
    heads = numbers.get("num_attention_heads", numbers.get("num_heads", 1))
    head = numbers.get("attention_head_dim", numbers.get("head_dim", numbers.get("d_kv", 1)))
    width = max([heads * head, *(numbers.get(name, 0) for name in WIDTHS)])
    depth = sum(numbers.get(name, 0) for name in DEPTHS) or 1
    rows = sum(numbers.get(name, 0) for name in TABLES)
    side = numbers.get("sample_size", 0) / max(numbers.get("patch_size", 1), 1)
    return 12 * depth * width**2 + (rows + side**2) * width + _convolutions(config, depth)


def _convolutions(config: Mapping[str, Any], depth: float) -> float:
    channels = [c for c in _list(config.get("block_out_channels")) if _number(c)]
    return 18 * depth * sum(_clipped(c) ** 2 for c in channels)


def _numbers(config: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Numbers of a config and of the tables in it, one level down; lists count their largest."""
    found = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += [(key, item) for key, item in value.items() if _number(item)]
        elif isinstance(value, list):
            found += [(name, max(item for item in value))] if _plain(value) else []
        elif _number(value):
            found.append((name, value))
    return [(name, _clipped(value)) for name, value in found]


def _clipped(value: float) -> float:
    """As a float whose square is one too; a JSON number may be larger than any float."""
    return float(max(min(value, 1e30), -1e30))


def _plain(values: list[Any]) -> bool:
    return bool(values) and all(_number(value) for value in values)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
