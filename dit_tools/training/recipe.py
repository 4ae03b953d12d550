"""A training recipe: one TOML file, read into frozen dataclasses and nothing else."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Data:
    """Where the pictures come from and how often each is drawn."""

    captions: str
    styles: tuple[str, ...]
    size: int
    style_words: dict[str, tuple[str, ...]]
    group_weights: dict[str, float]
    style_weights: dict[str, float]


@dataclass(frozen=True)
class Autoencoder:
    """Stage 1: sizes and training of the autoencoder."""

    channels: tuple[int, ...]
    latent_channels: int
    layers_per_block: int
    norm_num_groups: int
    batch_size: int
    pictures: int
    learning_rate: float
    gradient_weight: float
    latent_noise: float


@dataclass(frozen=True)
class Tokenizer:
    """Stage 2: the byte-pair tokenizer."""

    vocab_size: int


@dataclass(frozen=True)
class TextEncoder:
    """The text encoder, trained with the transformer."""

    d_model: int
    layers: int
    heads: int
    max_tokens: int


@dataclass(frozen=True)
class Transformer:
    """Stage 3: sizes and training of the transformer."""

    width: int
    heads: int
    layers: int
    patch_size: int
    batch_size: int
    samples: int
    learning_rate: float
    muon_learning_rate: float
    warmup_steps: int
    decay_fraction: float
    ema_decay: float
    prompt_dropout: float


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, apart from the pictures themselves."""

    name: str
    seed: int
    data: Data
    autoencoder: Autoencoder
    tokenizer: Tokenizer
    text_encoder: TextEncoder
    transformer: Transformer


SECTIONS = {
    "data": Data,
    "autoencoder": Autoencoder,
    "tokenizer": Tokenizer,
    "text_encoder": TextEncoder,
    "transformer": Transformer,
}


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def _section(cls: type, table: dict[str, Any], where: str) -> Any:
    known = {field.name for field in fields(cls)}
    unknown, missing = sorted(set(table) - known), sorted(known - set(table))
    if unknown or missing:
        raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}")
    return cls(**{key: _frozen(value) for key, value in table.items()})


def load(path: Path) -> Recipe:
    """Read a recipe. Raises ValueError naming the section when a key is unknown or missing."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, cls in SECTIONS.items():
        if name not in table:
            raise ValueError(f"{path}: no section [{name}]")
        table[name] = _section(cls, table[name], f"{path} [{name}]")
    return _section(Recipe, table, str(path))
