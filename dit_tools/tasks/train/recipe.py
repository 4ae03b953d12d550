"""A training recipe: a TOML file as frozen dataclasses and nothing else.

A recipe names itself, says where its images are, and overrides what it wants of the rest: every
other key has a default.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from dit_tools.core import spec
from dit_tools.core.errors import InputError
from dit_tools.core.registry import nearest

REPETITIONS = 200
"""How often an adapter sees every image where the recipe does not say."""


class RecipeError(InputError, ValueError):
    """A recipe cannot be read, or asks for something that does not exist."""


@dataclass(frozen=True)
class Data:
    """Where the images come from and how often each is drawn.

    Either ``folder`` (a folder or zip of images with captions, see ``folders``) or ``captions``
    (a JSON Lines file below ``root`` that names archives, styles and groups).
    """

    captions: str = ""
    styles: tuple[str, ...] = ()
    size: int = 0  # pixels; must be given
    style_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    group_weights: dict[str, float] = field(default_factory=dict)
    style_weights: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    root: str = ""  # the folder that ``captions`` is below; ``$DIT_DATA`` where it is not said
    strict: bool = False  # refuse the data when one image of the folder is bad
    keyword_prompts: float = 0.1  # share of prompts that are keywords without the name
    recoloured: int = 0  # copies of an image in other colours, for the transformer (``recolour``)
    recoloured_share: float = 0.3  # share of the draws that are such copies
    not_recoloured: tuple[str, ...] = ()  # "COLOUR THING" that no copy may show


@dataclass(frozen=True)
class Autoencoder:
    """Stage 1: sizes and training of the autoencoder."""

    channels: tuple[int, ...] = (16, 32, 96, 192)
    latent_channels: int = 16
    layers_per_block: int = 1
    norm_num_groups: int = 4
    batch_size: int = 32
    pictures: int = 32_000
    learning_rate: float = 1e-3
    muon_learning_rate: float = 5e-3
    gradient_weight: float = 0.5
    coarse_weight: float = 1.0
    latent_noise: float = 0.1
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokenizer:
    """Stage 2: the byte-pair tokenizer."""

    vocab_size: int = 4096


@dataclass(frozen=True)
class TextEncoder:
    """The text encoder, trained with the transformer."""

    d_model: int = 256
    layers: int = 2
    heads: int = 4
    max_tokens: int = 16


@dataclass(frozen=True)
class Transformer:
    """Stage 3: sizes and training of the transformer.

    ``sibling_of``: a finished run or model, whose autoencoder, tokenizer and text encoder this one
    takes as they are (see ``sibling``). ``start_from``: one of the same sizes, whose transformer's
    weights this one begins with.
    """

    width: int = 256
    heads: int = 4
    layers: int = 8
    patch_size: int = 1
    batch_size: int = 128
    samples: int = 640_000
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 3e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.4
    ema_decay: float = 0.998
    prompt_dropout: float = 0.1
    objectives: tuple[str, ...] = ()
    sibling_of: str = ""
    start_from: str = ""


@dataclass(frozen=True)
class Adapter:
    """An adapter of a finished model, instead of a model: what ``--lora`` takes.

    ``model``: what ``-m`` takes; ``method``: a spec of an adapter, as ``--adapter`` takes it. A step
    takes ``batch_size`` images, ``samples`` in all; 0: every image is seen 200 times. ``ema_decay``: of
    the moving average of the adapter, which then is what is saved; 0: none.
    """

    model: str = ""
    method: str = "lora"
    batch_size: int = 4
    samples: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 10
    decay_fraction: float = 0.4
    ema_decay: float = 0.0
    prompt_dropout: float = 0.1
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, apart from the images themselves."""

    name: str
    data: Data
    seed: int = 0
    autoencoder: Autoencoder = Autoencoder()
    tokenizer: Tokenizer = Tokenizer()
    text_encoder: TextEncoder = TextEncoder()
    transformer: Transformer = Transformer()
    adapter: Adapter = Adapter()

    @property
    def side(self) -> int:
        """Height and width of the latents."""
        return self.data.size // 2 ** (len(self.autoencoder.channels) - 1)


SECTIONS = {
    "data": Data,
    "autoencoder": Autoencoder,
    "tokenizer": Tokenizer,
    "text_encoder": TextEncoder,
    "transformer": Transformer,
    "adapter": Adapter,
}
ZERO = {
    "seed",
    "gradient_weight",
    "coarse_weight",
    "latent_noise",
    "prompt_dropout",
    "ema_decay",
    "keyword_prompts",
    "recoloured",
    "recoloured_share",
    "samples",
}
"""Numbers that may be 0; all others must be positive."""
UNIT = {"prompt_dropout", "ema_decay", "decay_fraction", "keyword_prompts", "recoloured_share"}
"""Numbers that may not exceed 1."""


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises RecipeError naming file, section, key and remedy.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read: {reason}", "give a recipe in TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"{path}: not TOML: {error}", "correct it, or begin with a recipe that comes with dit"
        ) from None
    for name, cls in SECTIONS.items():
        if name in table:
            if not isinstance(table[name], dict):
                raise RecipeError(f"{path}: {name} is not a section", f"write [{name}]")
            table[name] = _section(cls, table[name], f"{path} [{name}]")
    if "data" not in table:
        raise RecipeError(f"{path}: no section [data]", "add it with folder and size")
    made: Recipe = _section(Recipe, table, str(path))
    if made.data.folder:
        place = str(path.parent / Path(made.data.folder).expanduser())
        made = replace(made, data=replace(made.data, folder=place))
    if made.transformer.sibling_of:
        made = _sibling(made, table, path)
    made = _start(made, path)
    if "adapter" in table:
        made = _adapter(made, table, path)
    check_recipe(made, str(path))
    return made


def _adapter(recipe: Recipe, table: dict[str, Any], path: Path) -> Recipe:
    """The adapter's model relative to the recipe where it is a path. Raises RecipeError."""
    for name in ("autoencoder", "tokenizer", "text_encoder", "transformer"):
        if name in table:
            raise RecipeError(f"{path}: [adapter] trains no {name}", f"leave out [{name}]")
    if not recipe.adapter.model:
        raise RecipeError(f"{path} [adapter]: no key 'model'", "name what -m takes")
    place = path.parent / Path(recipe.adapter.model).expanduser()
    model = str(place) if place.exists() else recipe.adapter.model
    return replace(recipe, adapter=replace(recipe.adapter, model=model))


def _sibling(recipe: Recipe, table: dict[str, Any], path: Path) -> Recipe:
    """``sibling_of`` relative to the recipe where it is a path. Raises RecipeError."""
    for name in ("autoencoder", "tokenizer", "text_encoder"):
        if name in table:
            raise RecipeError(f"{path}: [{name}] is taken from sibling_of", "leave one of them out")
    name = _place(recipe.transformer.sibling_of, path)
    return replace(recipe, transformer=replace(recipe.transformer, sibling_of=name))


def _start(recipe: Recipe, path: Path) -> Recipe:
    """``start_from`` relative to the recipe where it is a path. Raises RecipeError."""
    if not (name := recipe.transformer.start_from):
        return recipe
    if not recipe.transformer.sibling_of:
        raise RecipeError(
            f"{path} [transformer]: start_from without sibling_of",
            "name the model that gives autoencoder and text encoder",
        )
    return replace(recipe, transformer=replace(recipe.transformer, start_from=_place(name, path)))


def _place(name: str, path: Path) -> str:
    """A model's name as it is; a path relative to the recipe."""
    return str(path.parent / Path(name).expanduser()) if len(Path(name).parts) > 1 else name


def _section(cls: type, table: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(cls)}
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}", nearest(key, list(known)))
    for name, f in known.items():
        if name not in table and f.default is MISSING and f.default_factory is MISSING:
            raise RecipeError(f"{where}: no key {name!r}", "add it")
    hints = get_type_hints(cls)
    return cls(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the field's type. Raises RecipeError."""
    if kind in SECTIONS.values():
        return value
    frozen = _frozen(value)
    if kind is float and type(frozen) is int:
        frozen = float(frozen)
    base = getattr(kind, "__origin__", kind)
    good = type(frozen) is base
    if good and base is tuple:
        good = all(type(item) is cast(Any, kind).__args__[0] for item in cast(tuple[Any, ...], frozen))
    if not good:
        words = {
            int: "a whole number",
            float: "a number",
            str: "text",
            bool: "true or false",
            tuple: "a list",
            dict: "a table",
        }
        raise RecipeError(f"{where} = {value!r} is not valid", f"give {words[base]}")
    return frozen


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raise RecipeError for numbers out of range and sizes that do not fit each other."""
    _check_name(recipe.name, where)
    for name in SECTIONS:
        section = getattr(recipe, name)
        for f in fields(section):
            _check_number(getattr(section, f.name), f.name, f"{where} [{name}]")
    _check_number(recipe.seed, "seed", where)
    d, a, e, t = recipe.data, recipe.autoencoder, recipe.text_encoder, recipe.transformer
    factor = 2 ** (len(a.channels) - 1) * t.patch_size
    known = not t.sibling_of and not recipe.adapter.model  # whether the sizes are the recipe's own
    wrong = [
        (bool(d.folder) == bool(d.captions), "[data]: folder or captions", "give one of them"),
        (
            bool(d.folder and d.recoloured),
            "[data]: recoloured with folder",
            "leave it out: it takes a colour's word into names, and a folder has sentences",
        ),
        (known and d.size % factor > 0, f"[data]: size {d.size}", f"give a multiple of {factor}"),
        (
            any(c % a.norm_num_groups for c in a.channels),
            "[autoencoder]: channels",
            f"give multiples of norm_num_groups, {a.norm_num_groups}",
        ),
        (
            t.width % (2 * t.heads) > 0,
            f"[transformer]: width {t.width}",
            f"give a multiple of {2 * t.heads}, twice the heads",
        ),
        (e.d_model % e.heads > 0, f"[text_encoder]: d_model {e.d_model}", f"give a multiple of {e.heads}, the heads"),
        (a.pictures < a.batch_size, "[autoencoder]: fewer images than a batch", "give more"),
        (t.samples < t.batch_size, "[transformer]: samples", "give at least a batch"),
        (0 < recipe.adapter.samples < recipe.adapter.batch_size, "[adapter]: samples", "give at least a batch"),
        (not a.channels, "[autoencoder]: channels", "give one number a level"),
    ]
    for bad, what, hint in wrong:
        if bad:
            raise RecipeError(f"{where} {what}: does not fit", hint)
    for name in (*a.objectives, *t.objectives, *recipe.adapter.objectives):
        spec.parse("objectives", name)
    spec.parse("adapters", recipe.adapter.method)


def _check_name(name: str, where: str) -> None:
    if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|\0'):
        raise RecipeError(f"{where}: name {name!r} is no folder name", "use letters and digits")


def _check_number(value: Any, name: str, where: str) -> None:
    values = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        top = 1.0 if name in UNIT else float("inf")
        if not (0 <= number <= top) or (number == 0 and name not in ZERO) or number == float("inf"):
            low = ">= 0" if name in ZERO else "> 0"
            hint = f"give a number {low}" + (" and <= 1" if name in UNIT else "")
            raise RecipeError(f"{where}: {name} = {number:g} is out of range", hint)
