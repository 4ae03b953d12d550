"""What other programs write into their images: settings of A1111 and its kin, JSON of others.

A1111's text (Forge, SD.Next, stable-diffusion.cpp, Civitai) is a prompt, a ``Negative prompt:``
part and settings that start at the last line with ``Steps: N``. SwarmUI, NovelAI and ComfyUI write
JSON: the first two name their values, the last a graph of nodes, which is understood where one
sampler leads to one prompt.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError
from dit_tools.core.reading import parse_json
from dit_tools.media.metadata import read_parameters, read_texts

_SETTINGS = re.compile(r"^[ \t]*Steps: \d+", re.M)
_NEGATIVE = re.compile(r"^[ \t]*Negative prompt:[ \t]?", re.M)
_PAIR = re.compile(r'\s*([A-Za-z][A-Za-z0-9 _/-]*): ("(?:[^"\\]|\\.)*"|\{[^{}]*\}|[^,\n]*)(?:,|\n|$)', re.S)
_A1111 = {"Steps": "steps", "CFG scale": "cfg_scale", "Seed": "seed", "Size": "size"}
_SWARM = {
    "negativeprompt": "negative_prompt",
    "steps": "steps",
    "cfgscale": "cfg_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
}
_NOVEL = {
    "uc": "negative_prompt",
    "steps": "steps",
    "scale": "cfg_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
}
_HAND = "give the options by hand"


@dataclass
class Generation:
    """What a text says of how an image was made.

    Attributes:
        prompt: the prompt, or None.
        values: names of options of ``dit generate`` -> values as they are written.
        aside: what was not understood, in words.
    """

    prompt: str | None
    values: dict[str, Any] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)


def read_generation(source: str | Path | bytes) -> Generation | None:
    """What another program says in an image file; None where it says nothing.

    Raises InputError for an unreadable file, and for JSON that is not understood: it is no prompt.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    text = read_parameters(source)
    if text is not None:
        return from_json(text, name) if text.lstrip()[:1] == "{" else from_a1111(text)
    texts = read_texts(source)
    for key in ("prompt", "Comment"):
        if texts.get(key, "").lstrip()[:1] == "{":
            return from_json(texts[key], name)
    return None


def from_a1111(text: str) -> Generation:
    """Read the text of A1111 and its kin, with any line ends and whatever stands behind the settings."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    starts = list(_SETTINGS.finditer(text))
    head, settings = (text[: starts[-1].start()], text[starts[-1].start() :]) if starts else (text, "")
    found = list(_NEGATIVE.finditer(head))
    prompt, negative = (head[: found[0].start()], head[found[0].end() :]) if found else (head, "")
    pairs, aside = _pairs(settings)
    values: dict[str, Any] = {name: pairs[key] for key, name in _A1111.items() if key in pairs}
    if negative.strip():
        values["negative_prompt"] = negative.strip("\n")
    return Generation(prompt.strip("\n"), values, [key for key in pairs if key not in _A1111] + aside)


def _pairs(settings: str) -> tuple[dict[str, str], list[str]]:
    """``Key: value`` pairs of the settings' line, and what stands behind them, in words."""
    pairs: dict[str, str] = {}
    place = 0
    while match := _PAIR.match(settings, place):
        if match[1] in ("Template", "Negative Template"):  # of a prompt generator: the rest is its text
            return pairs, [match[1]]
        pairs.setdefault(match[1].strip(), match[2].strip())
        place = match.end()
    return pairs, ["text behind the settings"] if settings[place:].strip() else []


def from_json(text: str, name: str) -> Generation:
    """Read what SwarmUI, NovelAI or ComfyUI wrote. Raises InputError for other JSON."""
    content = parse_json(text, f"{name}: its description")
    if isinstance(content, dict) and isinstance(content.get("sui_image_params"), dict):
        return _named(content["sui_image_params"], _SWARM, name, "SwarmUI")
    if isinstance(content, dict) and "uc" in content and "prompt" in content:
        return _named(content, _NOVEL, name, "NovelAI")
    if isinstance(content, dict) and any(isinstance(n, dict) and "class_type" in n for n in content.values()):
        return _graph(content, name)
    raise InputError(f"{name}: its description is JSON of a program that dit does not know", _HAND)


def _named(table: dict[str, Any], known: dict[str, str], name: str, program: str) -> Generation:
    prompt = table.get("prompt")
    if not isinstance(prompt, str):
        raise InputError(f"{name}: its description by {program} holds no prompt", _HAND)
    values = {
        ours: str(table[theirs]) if ours == "negative_prompt" else _plain(table[theirs], name)
        for theirs, ours in known.items()
        if table.get(theirs) not in (None, "")
    }
    if values.get("seed") == -1:
        del values["seed"]
    return Generation(prompt, values, sorted(key for key in table if key not in known and key != "prompt"))


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{name}: its description holds {json.dumps(value)[:40]} for a number", _HAND)
    return value


def _graph(nodes: dict[str, Any], name: str) -> Generation:
    """A ComfyUI graph with one sampler, whose inputs name or lead to everything."""
    samplers = [n for n in nodes.values() if isinstance(n, dict) and _inputs(n).keys() >= {"positive", "seed", "steps"}]
    if len(samplers) != 1:
        raise InputError(f"{name}: its ComfyUI graph has {len(samplers)} samplers that dit understands", _HAND)
    inputs = _inputs(samplers[0])
    prompt = _text(nodes, inputs.get("positive"))
    if prompt is None:
        raise InputError(f"{name}: its ComfyUI graph leads to no plain prompt", _HAND)
    values = {ours: inputs.get(theirs) for theirs, ours in (("seed", "seed"), ("steps", "steps"), ("cfg", "cfg_scale"))}
    negative = _text(nodes, inputs.get("negative"))
    latent = _node(nodes, inputs.get("latent_image"))
    values |= {key: _inputs(latent).get(key) for key in ("width", "height")} | {"negative_prompt": negative or None}
    made = {key: value for key, value in values.items() if isinstance(value, (int, float, str))}
    used = {"KSampler", "CLIPTextEncode", "EmptyLatentImage", "VAEDecode", "SaveImage"}
    kinds = {str(n.get("class_type")) for n in nodes.values() if isinstance(n, dict)}
    return Generation(prompt, made, sorted(kinds - used))


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _node(nodes: dict[str, Any], link: Any) -> Any:
    return nodes.get(str(link[0])) if isinstance(link, list) and link else None


def _text(nodes: dict[str, Any], link: Any) -> str | None:
    """The text that a conditioning comes from, over at most a few nodes that pass it on."""
    for _ in range(8):
        inputs = _inputs(_node(nodes, link))
        for key in ("text", "value", "string"):
            if isinstance(inputs.get(key), str):
                return inputs[key]
        link = next((inputs[key] for key in ("text", "conditioning", "positive") if key in inputs), None)
    return None
