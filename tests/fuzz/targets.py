"""What is fuzzed: a reader, a few sound inputs for it, and how its input is given."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dit_tools.core.reading import parse_json, parse_toml
from dit_tools.jobs.config import read_config
from dit_tools.jobs.prompts import read_prompts
from dit_tools.jobs.record import from_image
from dit_tools.media import image, latent_file, metadata
from dit_tools.media.foreign import from_a1111, from_json
from dit_tools.models import cache_presets, calibration
from dit_tools.models.loading import onnx_loader, validation
from dit_tools.tasks import evaluate, info
from tests.media.test_foreign import COMFY, NOVEL, SETTINGS, SWARM

OPTIONS = ("seed", "steps", "cfg_scale", "size", "negative_prompt")
RECORD = {"version": 1, "prompt": "a cat", "seed": 7, "steps": 4, "width": 8, "height": 8, "lora": [], "versions": {}}


@dataclass(frozen=True)
class Target:
    """``read_calibration_presets`` takes a file whose name ends with ``suffix``; ``seeds`` are sound contents of it."""

    name: str
    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]
    suffix: str = ""


def _images() -> tuple[bytes, ...]:
    pixels = np.random.default_rng(0).random((8, 8, 4), np.float32)
    made = [image.encode(pixels[:, :, :3], kind, record=RECORD) for kind in image.FORMATS]
    made += [image.encode(pixels, kind, bits=16, record=RECORD) for kind in ("png", "tiff")]
    for kind in ("GIF", "BMP", "PPM", "JPEG2000"):
        buffer = io.BytesIO()
        Image.fromarray((pixels[:, :, :3] * 255).astype(np.uint8)).save(buffer, kind)
        made.append(buffer.getvalue())
    return tuple(made)


def _dumped(*tables: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(table).encode() for table in tables)


def _safetensors(metadata_of: dict[str, str]) -> bytes:
    from safetensors.numpy import save

    return save({"a": np.zeros((2, 3), np.float32)}, metadata_of)


FACTS = {"size": 128, "max_tokens": 12, "default_steps": 20, "default_cfg": 2.5, "solver": "euler", "onnx_size": [1, 2]}
JSONL = b'{"prompt": "a cat", "seed": 7}\n"a dog"\n{"file_name": "a.png", "text": "x"}\n'
TOML = b'steps = 3\nprompt = ["a", "b"]\n[preset.fine]\nsteps = 9\ncfg_scale = 2.5\n'


def targets() -> list[Target]:
    """Every reader of files that others write."""
    images = _images()
    return [
        Target("image", image.read, images, ".png"),
        Target("header", image.probe, images, ".png"),
        Target("record", metadata.read_record, images, ".png"),
        Target("info", lambda path: info.as_lines(info.inspect_file(str(path))), images, ".png"),
        Target("from-image", lambda path: from_image(str(path)), images, ".png"),
        Target("a1111", lambda path: from_a1111(path.read_text("latin-1")), (f"x\n{SETTINGS}".encode(),)),
        Target("foreign", lambda path: from_json(path.read_text("latin-1"), "a"), _dumped(SWARM, NOVEL, COMFY)),
        Target("text", lambda path: read_prompts(path, options=OPTIONS), (b'a cat\n--prompt "b" --seed 7\n',), ".txt"),
        Target("csv", lambda path: read_prompts(path, options=OPTIONS), (b'prompt,seed\n"a, b",7\nc,\n',), ".csv"),
        Target("jsonl", lambda path: read_prompts(path, options=OPTIONS), (JSONL,), ".jsonl"),
        Target("config", read_config, (TOML,), ".toml"),
        Target("json", lambda path: parse_json(path.read_bytes(), "a"), _dumped(SWARM, RECORD, FACTS)),
        Target("toml", lambda path: parse_toml(path.read_bytes(), "a"), (TOML,)),
        Target("dit.json", onnx_loader._json, _dumped(FACTS), "dit.json"),
        Target("model-json", validation.read_json, _dumped(FACTS, {"_class_name": "X"}), ".json"),
        Target("safetensors", validation.header, (_safetensors({"a": "b"}),), ".safetensors"),
        Target(
            "latent", latent_file.unpack_latent, (_safetensors({"dit": json.dumps({"command": "invert"})}),), ".latent"
        ),
        Target("calibration", calibration.read_calibration, (_safetensors({"dit": '{"cache": "x"}'}),), ".safetensors"),
        Target("presets", cache_presets.read_presets, _dumped({"teacache": {"20": {"fast": "teacache:x=1"}}}), ".json"),
        Target("eval-prompts", evaluate.read_prompts, (b'{"file": "a.png", "prompt": "x"}\n',), ".jsonl"),
    ]
