"""The names of other tools in LoRA files, brought into one form: part, layer, tensor.

Understood are the names of peft (``base_model.model.``), diffusers (``transformer.``), kohya
(``lora_unet_``, flattened), LyCORIS (``lycoris_``), OneTrainer (``lora_transformer_``), ComfyUI
(``diffusion_model.``), and a family's original ones (``Family.lora``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "module.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_unet_", "lycoris_transformer_", "lycoris_")
TEXT_PREFIXES = {
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "lycoris_te_": "text_encoder",
    "lycoris_te1_": "text_encoder",
    "lycoris_te2_": "text_encoder_2",
}
"""Prefix -> part of the pipeline."""

_HALF = r"(?P<{0}>lora_{1}(?:\.default)?(?:\.weight)?|lora_{2}(?:\.default)?\.weight|lora\.{2}(?:\.weight)?)"
_TENSORS = re.compile(
    r"\.(?:"
    + "|".join(
        [
            _HALF.format("down", "A", "down"),
            _HALF.format("up", "B", "up"),
            r"(?P<lora_bias>lora_B(?:\.default)?\.bias|lora_up\.bias)",
            r"(?P<alpha>alpha)",
            r"(?P<magnitude>lora_magnitude_vector(?:\.default)?(?:\.weight)?|dora_scale)",
            r"(?P<factor>hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)",
            r"(?P<diff>diff)",
            r"(?P<diff_b>diff_b)",
            r"(?P<unknown>lora_mid(?:\.weight)?|hada_t[12]|lokr_t[12]|lora_A\.bias|lora_down\.bias|oft_\w+|boft_\w+"
            r"|lora_embedding_[AB]|ia3_\w+|w_norm|b_norm|set_weight|reshape_weight|a1\.weight|a2\.weight)",
        ]
    )
    + r")$"
)
_PROCESSOR = re.compile(r"^(.+?)\.processor\.(to_\w+?)_lora\.(down|up)\.weight$")
_XLABS = re.compile(r"^(.+_lora[12]?)\.(down|up)\.weight$")


@dataclass(frozen=True)
class Target:
    """A layer of one part of the pipeline, and which rows of the file's tensors it takes."""

    part: str
    layer: str
    rows: slice | None = None
    halves_swapped: bool = False


def split_key(key: str) -> tuple[str, str] | None:
    """A tensor's name as its layer, in the file's spelling, and its kind; None for no adapter's.

    Kinds: down, up, lora_bias, alpha, magnitude, diff, diff_b, the factors of LoHa and LoKr by their
    own names, and ``unknown:NAME`` for those that dit cannot apply.
    """
    if found := _PROCESSOR.match(key):
        layer = f"{found[1]}.{found[2]}"
        return (f"{layer}.0" if layer.endswith("to_out") else layer), found[3]
    if found := _TENSORS.search(key):
        kind = str(found.lastgroup)
        name = found[0][1:]
        kind = {"factor": name, "unknown": f"unknown:{name}"}.get(kind, kind)
        return key[: found.start()], kind
    if found := _XLABS.match(key):
        return found[1], found[2]
    return None


class Layers:
    """The layers of a pipeline's parts, looked up by any tool's name."""

    def __init__(self, parts: Mapping[str, Any], main: str, original: Mapping[str, tuple[str, ...]]):
        """``parts``: name -> module, ``main`` the denoiser's; ``original`` is ``Family.lora``."""
        self.main = main
        self.modules = {part: dict(module.named_modules()) for part, module in parts.items()}
        self._flat = {
            part: {name.replace(".", "_"): name for name in modules} for part, modules in self.modules.items()
        }
        self._original = [(_pattern(name), targets) for name, targets in original.items()]

    def find(self, stem: str) -> list[Target]:
        """The layers that a file's layer is; empty when there is none."""
        for prefix, part in TEXT_PREFIXES.items():
            if stem.startswith(prefix) and part in self.modules:
                found = self._named(part, stem.removeprefix(prefix))
                return [Target(part, found)] if found else []
        for name in _spellings(stem):
            if found := self._named(self.main, name):
                return [Target(self.main, found)]
            if targets := self._fused(name):
                return targets
        return []

    def _named(self, part: str, name: str) -> str | None:
        modules = self.modules[part]
        for candidate in (name, f"{name}.0", f"text_model.{name}"):
            if candidate and candidate in modules:
                return candidate
        return self._flat[part].get(name) if name else None

    def _fused(self, name: str) -> list[Target]:
        """Layers by a family's original name, each with its share of the rows."""
        for pattern, targets in self._original:
            if found := pattern.match(name):
                names = [_filled(target, found.groups()) for target in targets]
                return self._shares(names)
        return []

    def _shares(self, names: list[str]) -> list[Target]:
        if any(name.rstrip("~") not in self.modules[self.main] for name in names):
            return []
        if len(names) == 1:
            return [Target(self.main, names[0].rstrip("~"), None, names[0].endswith("~"))]
        made, start = [], 0
        for name in names:
            count = int(self.modules[self.main][name].out_features)
            made.append(Target(self.main, name, slice(start, start + count)))
            start += count
        return made


def _spellings(stem: str) -> list[str]:
    """The name as it is, then without the prefixes of tools that it may have, longest first."""
    found = [stem]
    for _ in range(2):  # peft puts its own in front of another
        longest = next((prefix for prefix in PREFIXES if found[-1].startswith(prefix)), None)
        if longest:
            found.append(found[-1].removeprefix(longest))
    return found + [name.removeprefix(prefix) for name in found for prefix in FLAT_PREFIXES if name.startswith(prefix)]


def _pattern(name: str) -> re.Pattern[str]:
    """``double_blocks.{}.img_attn.qkv``, with dots or flattened to underscores."""
    parts = (re.escape(word) for word in name.split("."))
    return re.compile("^" + "[._]".join(parts).replace(re.escape("{}"), r"(\d+)") + "$")


def _filled(target: str, numbers: tuple[str, ...]) -> str:
    for number in numbers:
        target = target.replace("{}", number, 1)
    return target
