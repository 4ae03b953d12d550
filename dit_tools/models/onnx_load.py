"""Loading a folder that holds ONNX graphs: ``transformer.onnx``, ``vae_decoder.onnx`` and so on.

The graphs of the built-in models hold no weights of their own: their initializers are byte ranges of
the diffusers safetensors files beside them, so both backends run the very same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models.families import family_class
from dit_tools.models.model import Defaults, Model
from dit_tools.models.onnx_network import OnnxCodec, OnnxNetwork, OnnxTextEncoder, providers

NO_CUDA = "--device {}: ONNX Runtime has no working CUDA provider here"
GRAPHS = ("transformer.onnx", "text_encoder.onnx", "vae_decoder.onnx")


def load_onnx(resolved: Any, wishes: Any) -> Model:
    """A Model on ONNX Runtime. Raises ModelError for a damaged folder, UnsupportedError (device)."""
    folder: Path = resolved.path
    facts = _json(folder / "dit.json")
    index = _json(folder / "model_index.json")
    for name in GRAPHS:
        if not (folder / name).exists():
            raise ModelError(f"{folder / name} is missing", "run 'dit models verify'")
    chosen = _providers(wishes.device)
    family = family_class(index["_class_name"])(
        _json(folder / "transformer/config.json"),
        _json(folder / "vae/config.json"),
        _json(folder / "scheduler/scheduler_config.json"),
    )
    transformer = "transformer.int8.onnx" if wishes.dtype == "int8" else "transformer.onnx"
    decoder = _session(folder / "vae_decoder.onnx", chosen)
    return Model(
        name=resolved.name,
        revision=resolved.revision,
        family=family,
        network=OnnxNetwork(_session(folder / transformer, chosen)),
        codec=OnnxCodec(decoder, lambda: _session(folder / "vae_encoder.onnx", chosen), family),
        encode=OnnxTextEncoder(
            folder / "tokenizer/tokenizer.json",
            _session(folder / "text_encoder.onnx", chosen),
            int(facts["max_tokens"]),
        ),
        to_array=lambda x: x,
        defaults=defaults(facts),
        backend="onnx",
        device="cuda" if chosen[0].startswith("CUDA") else "cpu",
        dtype="int8" if wishes.dtype == "int8" else "float32",
        alpha=bool(facts.get("alpha")),
        notes=facts,
    )


def defaults(facts: dict[str, Any]) -> Defaults:
    """The defaults that a built-in model's ``dit.json`` states."""
    return Defaults(
        steps=int(facts["default_steps"]),
        cfg=float(facts["default_cfg"]),
        size=int(facts["size"]),
        solver=facts["solver"],
        schedule=facts.get("schedule", "native"),
    )


def _providers(device: str) -> list[str]:
    chosen = providers(device)
    if device.startswith("cuda") and not chosen[0].startswith("CUDA"):
        raise UnsupportedError(NO_CUDA.format(device), "install onnxruntime-gpu or use --device cpu")
    return chosen


def _session(path: Path, chosen: list[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=chosen)
    except Exception as error:  # onnxruntime raises many private types
        line = str(error).splitlines()[0][:200]
        raise ModelError(f"{path}: cannot be opened ({line})", "run 'dit models verify'") from None
    if session.get_providers()[0] != chosen[0]:  # a CUDA build without a usable GPU falls back
        raise UnsupportedError(NO_CUDA.format("cuda"), "check the driver, or use --device cpu")
    return session


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})", "run 'dit models verify'") from None
