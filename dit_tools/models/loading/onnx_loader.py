"""Loading a folder that holds ONNX graphs: ``transformer.onnx``, ``vae_decoder.onnx`` and so on.

The graphs hold no weights of their own: their initializers are byte ranges of the diffusers
safetensors files next to them, so both backends run the very same numbers. Built-in models have
graphs for all parts and never import torch. Where an exported folder has none for its text encoder
or autoencoder, those parts run in torch and arrays are converted on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.reading import Field, Table, read_json
from dit_tools.models import onnx_session
from dit_tools.models.backends.onnx_network import GPUS, OnnxCodec, OnnxNetwork, OnnxTextEncoder, providers
from dit_tools.models.backends.onnx_split import in_pieces
from dit_tools.models.families import family_class
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.model import Defaults, Model

NO_GPU = "--device {}: ONNX Runtime has no working {} here"
GRAPHS = ("transformer.onnx", "text_encoder.onnx", "vae_decoder.onnx")


def load_onnx(resolved: Any, wishes: Any) -> Model:
    """A Model on ONNX Runtime.

    Raises ModelError for a damaged folder, UnsupportedError for a device, a precision or a size
    that the graphs cannot serve.
    """
    folder: Path = resolved.path
    facts, exported = (_json(folder / name, {}) for name in ("dit.json", "export.json"))
    family = _family(folder)
    if facts and not exported:
        _check_whole(folder)
    _check_size(exported, wishes.size)
    int8 = wishes.dtype == "int8"
    _check_form(wishes.device, exported, int8)
    chosen = _providers(wishes.device)
    device = "cpu" if len(chosen) == 1 else "cuda"
    transformer = _beside(partial(_session, folder / _transformer(folder, int8), chosen))
    encode, codec = _parts(folder, family, facts | exported, chosen, device)
    alone = int8 or _one_by_one(exported)
    pieces = None if alone or not in_pieces(folder) else partial(_pieces, folder, chosen)
    network = OnnxNetwork(transformer(), alone, _context(folder, chosen), pieces)
    return Model(
        name=resolved.name,
        revision=resolved.revision,
        family=family,
        network=network,
        codec=codec,
        encode=encode,
        to_array=lambda x: x,
        defaults=Defaults.of_facts(facts) if facts else _family_defaults(family),
        backend="onnx",
        device=device,
        dtype="int8" if int8 else "float32",
        alpha=bool(facts.get("alpha")),
        notes=facts,
    )


def _family(folder: Path) -> Family:
    index = _json(folder / "model_index.json")
    made = family_class(index.get("_class_name", ""))
    if made is None:
        raise UnsupportedError(f"--backend onnx: {index.get('_class_name')} has no adapter", "use --backend torch")
    return made(
        _json(folder / "transformer/config.json"),
        _json(folder / "vae/config.json"),
        _json(folder / "scheduler/scheduler_config.json"),
    )


def _check_whole(folder: Path) -> None:
    for name in GRAPHS:
        if not (folder / name).exists():
            raise ModelError(f"{folder / name} is missing", "run 'dit models verify'")


def _context(folder: Path, chosen: list[str]) -> Any:
    """The graph of what the transformer makes of its text alone; None where it is not apart."""
    path = folder / "transformer.context.onnx"
    return _session(path, chosen) if path.exists() else None


def _pieces(folder: Path, chosen: list[str]) -> Any:
    """The transformer in pieces. Raises ModelError for damaged ones."""
    from dit_tools.models.backends.onnx_split import Subgraphs

    try:
        return Subgraphs(lambda path: _session(path, chosen), folder)
    except (KeyError, ValueError) as error:
        message = f"{folder / 'transformer.embed.onnx'}: says nothing of its blocks ({error})"
        raise ModelError(message, "write the pieces again with 'dit export --split'") from None


def _one_by_one(exported: dict[str, Any]) -> bool:
    """Whether 'dit quantize' made graphs whose scales depend on everything in a call."""
    few = exported.get("quantized")
    return isinstance(few, dict) and few.get("one_by_one") is True


def _check_size(exported: dict[str, Any], size: tuple[int, int] | None) -> None:
    """Raise UnsupportedError for a size (height, width) that the graph was not exported for."""
    own = exported.get("size")
    if own and size and tuple(own) != tuple(size):
        raise UnsupportedError(
            f"--size {size[1]}x{size[0]}: the graph was exported for {own[1]}x{own[0]}",
            f"use --size {own[1]}x{own[0]}, or --backend torch",
        )


def _transformer(folder: Path, int8: bool) -> str:
    if int8 and not (folder / "transformer.int8.onnx").exists():
        raise UnsupportedError(
            f"--dtype int8: {folder.name} has no transformer.int8.onnx",
            "write one with 'dit export --int8', or leave --dtype out",
        )
    return "transformer.int8.onnx" if int8 else "transformer.onnx"


def _parts(folder: Path, family: Family, facts: dict[str, Any], chosen: list[str], device: str) -> tuple[Any, Any]:
    """Text encoder and codec, each from its graph where there is one, else in torch."""
    text = (folder / "text_encoder.onnx").exists() and facts.get("max_tokens")
    vae = (folder / "vae_decoder.onnx").exists()
    if not (text and vae):
        torch_text, torch_codec = _torch_parts(folder, family, device, text=not text, vae=not vae)
    micro = bool(getattr(family, "micro_conditions", False))
    encode = (
        torch_text
        if not text
        else OnnxTextEncoder(
            folder / "tokenizer/tokenizer.json",
            _session(folder / "text_encoder.onnx", chosen),
            int(facts["max_tokens"]),
            micro,
        )
    )
    codec = (
        torch_codec
        if not vae
        else OnnxCodec(
            _session(folder / "vae_decoder.onnx", chosen),
            partial(_session, folder / "vae_encoder.onnx", chosen),
            family,
        )
    )
    return encode, codec


def _family_defaults(family: Family) -> Defaults:
    from dit_tools.models.loading.from_pipeline import defaults as of_family

    return of_family(family)


DIT_JSON = Table(
    {
        "name": Field(str, most=200),
        "title": Field(str, most=1000),
        "family": Field(str, most=100),
        "size": Field(int, least=1, most=65536),
        "onnx_size": Field(list, least=2, most=2, item=Field(int, least=1, most=65536)),
        "max_tokens": Field(int, least=1, most=100_000),
        "default_steps": Field(int, least=1, most=1000),
        "default_cfg": Field(float, least=0, most=1000),
        "solver": Field(str, most=1000),
        "schedule": Field(str, most=1000),
        "alpha": Field(bool),
    }
)
"""What ``dit.json`` of a model folder may say, as far as it is read: a library below aborts on more."""


def _providers(device: str) -> list[str]:
    chosen, wanted = providers(device), GPUS.get(device.partition(":")[0])
    if wanted and chosen[0] != wanted[0]:
        raise UnsupportedError(NO_GPU.format(device, wanted[0]), "install onnxruntime-gpu or use --device cpu")
    return chosen


def _check_form(device: str, exported: dict[str, Any], int8: bool) -> None:
    """Raise UnsupportedError for operators that TensorRT does not have."""
    few = exported.get("quantized")
    form = "dynamic" if int8 else few.get("form") if isinstance(few, dict) else None
    if device == "tensorrt" and form in ("dynamic", "int4"):
        raise UnsupportedError(
            f"--device tensorrt: it cannot run a graph of form={form}", "use a graph of form=static, or --device cpu"
        )


def _beside(work: Callable[[], Any]) -> Callable[[], Any]:
    """Do ``work`` in a thread; what comes back waits and gives its result, or raises its error.

    ONNX Runtime lets other threads run while it opens a graph, which is most of a cold start.
    """
    result: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join()
        if errors:
            raise errors[0]
        return result[0]

    return wait


def _session(path: Path, chosen: list[str]) -> Any:
    try:
        session = onnx_session.open_session(path, chosen)
    except Exception as error:  # onnxruntime raises many private types
        line = str(error).splitlines()[0][:200]
        raise ModelError(f"{path}: cannot be opened ({line})", "run 'dit models verify'") from None
    if session.get_providers()[0] != chosen[0]:  # a CUDA build without a usable GPU falls back
        raise UnsupportedError(NO_GPU.format("cuda or tensorrt", chosen[0]), "check the driver, or use --device cpu")
    return session


def _json(path: Path, absent: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON file, or ``absent`` where that is given and there is none. Raises ModelError."""
    if absent is not None and not path.exists():
        return absent
    try:
        return read_json(path, schema=DIT_JSON if path.name == "dit.json" else Table(), error=ModelError)
    except ModelError as error:
        reason = error.message.removeprefix(f"{path}: ").removeprefix("cannot be read: ")
        raise ModelError(f"{path}: cannot be read ({reason})", "run 'dit models verify'") from None


# parts that stay in torch; everything outside them is numpy --------------------------------------------


def _torch_parts(
    folder: Path, family: Family, device: str, *, text: bool, vae: bool
) -> tuple[NumpyText | None, NumpyCodec | None]:
    """Text encoder and codec in torch, each where it is wanted; the transformer is not loaded.

    Raises ModelError for damaged files, as ``pipeline_folder`` does.
    """
    import torch

    from dit_tools.models.backends.torch_network import PipelineTextEncoder, TorchCodec
    from dit_tools.models.loading import pipeline_folder, validation

    validation.check_folder(folder, without="transformer")
    left_out: dict[str, Any] = {"transformer": None} | ({} if vae else {"vae": None})
    if not text:
        left_out |= {name: None for name in validation.components(folder) if name.startswith("text_enc")}
    with pipeline_folder.quiet(), pipeline_folder.explained(folder):
        pipe = pipeline_folder.from_folder(folder, torch.float32, **left_out).to(device)
    pipe.set_progress_bar_config(disable=True)
    return (
        NumpyText(PipelineTextEncoder(pipe, family)) if text else None,
        NumpyCodec(TorchCodec(pipe.vae, family)) if vae else None,
    )


class NumpyText:
    """A text encoder in torch whose conditions are numpy arrays."""

    def __init__(self, encode: Callable[[ConditionRequest], dict[str, dict[str, Array]]]):
        self.encode = encode

    def __call__(self, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Branch name -> condition arrays, float32 or integer."""
        return {
            branch: {name: _numpy(value) for name, value in condition.items()}
            for branch, condition in self.encode(request).items()
        }


class NumpyCodec:
    """An autoencoder in torch with numpy latents."""

    def __init__(self, codec: Any):
        self.codec = codec

    def decode(self, latents: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1]."""
        import torch

        return self.codec.decode(torch.as_tensor(latents).to(self.codec.vae.device))

    def encode(self, pixels: Array) -> Array:
        """Latents (B, C, h, w)."""
        return _numpy(self.codec.encode(pixels))


def _numpy(value: Array) -> Array:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
