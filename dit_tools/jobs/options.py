"""The options of an image, in one table that all their sources share.

The command line, prompt files, configs, presets, records and sweeps name the same options and their
values go through the same readers, so that an option means the same everywhere. Imports neither
numpy nor torch: a typing error costs no start-up time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import nearest
from dit_tools.jobs.prompts import PROMPT_LIMIT
from dit_tools.jobs.seeds import parse_seeds

MAX_SIDE = 16384  # pixels; the sides that every image format here can hold
MAX_STEPS = 1000  # as many as the discrete schedules were trained with
Reader = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Option:
    """One option: its long name with ``_``, the reader of its values, other names for it."""

    name: str
    read: Reader
    aliases: tuple[str, ...] = ()


def _whole(low: int, high: int) -> Reader:
    def read(value: Any, where: str) -> int:
        try:
            number = int(value) if not isinstance(value, float) or value == int(value) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or isinstance(value, bool):
            raise UsageError(f"{where} {_shown(value)}: not a whole number", f"give {low}..{high}")
        if not low <= number <= high:
            raise UsageError(f"{where} {_shown(value)}: out of range", f"give {low}..{high}")
        return number

    return read


def _number(low: float, high: float) -> Reader:
    def read(value: Any, where: str) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or isinstance(value, bool):
            raise UsageError(f"{where} {_shown(value)}: not a number", f"give {low:g}..{high:g}")
        if not low <= number <= high:  # NaN is in no range
            raise UsageError(f"{where} {_shown(value)}: out of range", f"give {low:g}..{high:g}")
        return number

    return read


def _word(*choices: str) -> Reader:
    def read(value: Any, where: str) -> str:
        if value not in choices:
            hint = nearest(str(value)[:40], list(choices))
            raise UsageError(f"{where} {_shown(value)}: no such choice", hint)
        return value

    return read


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} {_shown(value)}: not text", "put it in quotes")
    check_prompt(value, where)
    return value


def _flag(value: Any, where: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise UsageError(f"{where} {_shown(value)}: neither true nor false", "give true or false")
    return found


DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}
"""What other programs call them."""


def _dtype(value: Any, where: str) -> str:
    word = DTYPES.get(value, value) if isinstance(value, str) else value
    return _word("auto", "float32", "float16", "bfloat16", "int8")(word, where)


def _method(room: str) -> Reader:
    def read(value: Any, where: str) -> str:
        text = _text(value, where)
        spec.parse(room, text)
        return text

    return read


def _seed(value: Any, where: str) -> str:
    if isinstance(value, (list, tuple)):
        value = ",".join(str(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UsageError(f"{where} {_shown(value)}: no seed", "give 42, 1,2,3, 10..20 or -1")
    parse_seeds(str(value))
    return str(value)


def _size(value: Any, where: str) -> tuple[int, int]:
    parts = str(value).lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise UsageError(f"{where} {_shown(value)}: not a size", "give WIDTHxHEIGHT, such as 64x64")
    width, height = parts[0], parts[-1]
    return _SIDE(width.strip(), where), _SIDE(height.strip(), where)


def _colour(value: Any, where: str) -> str:
    from PIL import ImageColor

    text = _text(value, where)
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        raise UsageError(f"{where} {_shown(value)}: no colour", "give a name such as white, or #ff8800") from None
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


def _format(value: Any, where: str) -> str:
    from dit_tools.media.image import format_of

    return format_of("-", _text(value, where))


def _loras(value: Any, where: str) -> tuple[str, ...]:
    from dit_tools.models.loading.lora import parse_lora

    parts = value if isinstance(value, (list, tuple)) else (value,)
    texts = tuple(_text(part, where) for part in parts)
    for text in texts:
        parse_lora(text)
    return texts


def _calibration(value: Any, where: str) -> str:
    text = _text(value, where).strip()
    if not text or "," in text:
        raise UsageError(f"{where} {_shown(value)}: empty, or with a comma", "rename the file")
    return text


def _shown(value: Any) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def check_prompt(text: str, where: str) -> None:
    """Raise UsageError for a prompt of over 100 kB, or one that is no Unicode text."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise UsageError(f"{where}: not UTF-8 text", "check the terminal's encoding") from None
    if size > PROMPT_LIMIT:
        raise UsageError(f"{where}: a text of {size} bytes", f"at most {PROMPT_LIMIT}")
    if "\0" in text:
        raise UsageError(f"{where}: holds a zero byte", "remove it")


_SIDE = _whole(1, MAX_SIDE)

OPTIONS = {
    option.name: option
    for option in (
        Option("negative_prompt", _text, ("negative",)),
        Option("model", _text),
        Option("seed", _seed),
        Option("num_images", _whole(1, 100_000)),
        Option("size", _size),
        Option("width", _SIDE),
        Option("height", _SIDE),
        Option("steps", _whole(1, MAX_STEPS), ("num_inference_steps",)),
        Option("cfg_scale", _number(0, 1000), ("cfg", "guidance_scale")),
        Option("schedule", _method("schedules")),
        Option("solver", _method("solvers")),
        Option("guidance", _method("guidance")),
        Option("noise", _method("noise")),
        Option("cache", _method("caching")),
        Option("calibration", _calibration),
        Option("min_psnr", _number(1, 100)),
        Option("attention", _method("sparse_attention")),
        Option("tokens", _method("token_reduction")),
        Option("highres", _method("highres")),
        Option("combine", _method("composition")),
        Option("second_model", _text),
        Option("second_prompt", _text),
        Option("embedded_guidance", _number(0, 1000)),
        Option("max_tokens", _whole(1, 100_000)),
        Option("device", _text),
        Option("dtype", _dtype),
        Option("backend", _word("auto", "torch", "onnx")),
        Option("lora", _loras),
        Option("offload", _word("none", "model", "group")),
        Option("vae_tiling", _flag),
        Option("vae_slicing", _flag),
        Option("allow_pickle", _flag),
        Option("base", _text),
        Option("transparent", _flag),
        Option("background", _colour),
        Option("format", _format),
        Option("quality", _whole(1, 100)),
    )
}
"""Long option name -> option. A size is kept as width and height."""

NAMES = {alias: o.name for o in OPTIONS.values() for alias in (o.name, *o.aliases)}
"""Every name that an option may be given by -> its own name."""


def find_option(key: str, where: str) -> Option:
    """The option of a key as a file or a sweep spells it. Raises UsageError with the nearest."""
    plain = key.strip().lstrip("-").replace("-", "_")
    if plain not in NAMES:
        raise UsageError(f"{where}: no option {_shown(key)!r}", nearest(plain[:40], sorted(NAMES)))
    return OPTIONS[NAMES[plain]]


def read_values(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Options of one source, read and checked; those that are None are not given.

    ``where`` names a source other than the command line, such as ``cats.csv:3``. Raises UsageError
    for an unknown option, a bad value, and an option given in two ways.
    """
    made: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        option = find_option(key, where or "options")
        flag = "--" + option.name.replace("_", "-")
        place = f"{where}: {flag}" if where else flag
        read = option.read(value, place)
        parts = {"width": read[0], "height": read[1]} if option.name == "size" else None
        for name, part in (parts or {option.name: read}).items():
            if name in made:
                raise UsageError(f"{place}: given twice with its other name", "give one of them")
            made[name] = part
    check_scale(made, where)
    return made


def check_scale(values: Mapping[str, Any], where: str = "") -> None:
    """Raise UsageError when one source gives the guidance scale twice, or where it has no place."""
    guidance, scale = values.get("guidance"), values.get("cfg_scale")
    if guidance is None or scale is None:
        return
    prefix = f"{where}: " if where else ""
    if has_scale(guidance):
        message = f"{prefix}--cfg-scale {scale:g}: --guidance {guidance} gives the scale too"
        raise UsageError(message, "give one of them")
    if not takes_scale(guidance):
        message = f"{prefix}--cfg-scale {scale:g}: --guidance {guidance} takes no scale"
        raise UsageError(message, "give one of them")


def has_scale(guidance: str) -> bool:
    """Whether a guidance spec states its scale."""
    pairs = guidance.partition(":")[2].split(",")
    return any(pair.partition("=")[0].strip() == "scale" for pair in pairs)


def takes_scale(guidance: str) -> bool:
    """Whether the method of a guidance spec has a scale."""
    method = type(spec.parse("guidance", guidance))
    return any(parameter.name == "scale" for parameter in spec.parameters(method))


def without_scale(guidance: str) -> str:
    """A guidance spec without its scale."""
    name, _, rest = guidance.partition(":")
    pairs = [p for p in rest.split(",") if p.strip() and p.partition("=")[0].strip() != "scale"]
    return name + (":" + ",".join(pairs) if pairs else "")
