"""Loading a model through PyTorch and diffusers: weights, precision, LoRA, device, offload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.models.backends import pipeline_model
from dit_tools.models.families import family_class
from dit_tools.models.loading import gguf_loader, lora, quantized, validation
from dit_tools.models.loading.pipeline_folder import explained, from_folder, quiet
from dit_tools.models.model import Defaults, Model

DTYPES = ("float32", "float16", "bfloat16")
OFFLOADS = ("model", "group")


def load_torch(resolved: Any, wishes: Any, **parts: Any) -> Model:
    """A Model on PyTorch of what ``resolve`` found, loaded as ``wishes`` (``load.Wishes``) say.

    ``parts`` take the place of those of a folder.

    Raises ModelError for files that are missing, damaged, unsafe or do not fit each other,
    UnsupportedError for a device, precision, offload or autoencoder that cannot do what is asked.
    """
    loras = [lora.parse_lora(text) for text in wishes.loras]
    device = pick_device(wishes.device)
    dtype = pick_dtype(wishes.dtype, device)
    _check_offload(wishes.offload, device)
    with quiet(), explained(resolved.path):
        pipe = _read(resolved, wishes, dtype, parts)
        applied = lora.apply(pipe, loras) if loras else []
        _vae_options(pipe, tiling=wishes.vae_tiling, slicing=wishes.vae_slicing)
        place(pipe, device, wishes.offload)
    pipe.set_progress_bar_config(disable=True)
    model = _model(pipe, resolved, device, dtype)
    _shipped_facts(model, resolved.path)
    model.notes = {**model.notes, "loras": applied, "offload": wishes.offload}
    return model


def pick_device(wish: str) -> str:
    """``auto`` is cuda, else mps, else cpu. Raises UnsupportedError when it is not there."""
    import torch

    if wish == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise UsageError(f"--device {wish}: no such device", "give auto, cpu, cuda or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnsupportedError(f"--device {wish}: PyTorch sees no such GPU", "use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UnsupportedError(f"--device {wish}: not on this machine", "use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UnsupportedError(f"--device {wish}: not supported", "use auto, cpu, cuda or mps")
    return wish


def pick_dtype(wish: str, device: str) -> Any:
    """The torch dtype; ``auto`` is float32 on a CPU, else bfloat16, or float16 on old GPUs."""
    import torch

    if wish == "auto":
        if device == "cpu":
            return torch.float32
        old = device.startswith("cuda") and not torch.cuda.is_bf16_supported(False)
        return torch.float16 if old else torch.bfloat16
    if wish not in DTYPES:
        raise UsageError(f"--dtype {wish}: not known to PyTorch", f"use {', '.join(DTYPES)}")
    return getattr(torch, wish)


# reading ----------------------------------------------------------------------------------------


def _read(resolved: Any, wishes: Any, dtype: Any, parts: Any) -> Any:
    if resolved.kind == "file":
        from dit_tools.models.loading.single_file import load_file

        return load_file(resolved.path, wishes.base, dtype, allow_pickle=wishes.allow_pickle)
    if wishes.base is not None:
        raise UsageError("--base: only for a single file", f"{resolved.path.name} is a folder")
    without = quantized.PART if gguf_loader.is_gguf(resolved.path) else ""
    validation.check_folder(resolved.path, allow_pickle=wishes.allow_pickle, without=without)
    packed = parts or quantized.parts(resolved.path, dtype) or gguf_loader.parts(resolved.path, dtype)
    if packed and wishes.loras:
        raise UnsupportedError(f"--lora: the weights of {resolved.path.name} are packed", "add it to the plain model")
    return from_folder(resolved.path, dtype, allow_pickle=wishes.allow_pickle, **packed)


# memory -----------------------------------------------------------------------------------------


def _check_offload(offload: str | None, device: str) -> None:
    if offload is None:
        return
    if offload not in OFFLOADS:
        raise UsageError(f"--offload {offload}: not known", f"use {' or '.join(OFFLOADS)}")
    if device == "cpu":
        raise UnsupportedError(f"--offload {offload}: there is no GPU to keep parts away from", "leave it out")


def place(pipe: Any, device: str, offload: str | None) -> None:
    """Put a pipeline on its device, or let diffusers bring parts there when they are needed.

    ``model``: one part at a time (text encoder, transformer, autoencoder). ``group``: one block of
    a part at a time, slower and with far less memory.
    """
    import torch

    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "group":
        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
        )
    else:
        pipe.to(device)


def _vae_options(pipe: Any, *, tiling: bool, slicing: bool) -> None:
    for option, method, asked in (
        ("--vae-tiling", "enable_tiling", tiling),
        ("--vae-slicing", "enable_slicing", slicing),
    ):
        if not asked:
            continue
        vae = getattr(pipe, "vae", None)
        try:
            getattr(vae, method)()
        except (AttributeError, NotImplementedError):
            kind = type(vae).__name__ if vae is not None else type(pipe).__name__
            raise UnsupportedError(f"{option}: {kind} cannot do this", "leave it out") from None


# the model --------------------------------------------------------------------------------------


def _model(pipe: Any, resolved: Any, device: str, dtype: Any) -> Model:
    facts = {
        "name": resolved.name,
        "revision": resolved.revision,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
    }
    if family_class(type(pipe).__name__) is None:
        return pipeline_model.model_of(pipe, **facts)
    from dit_tools.models.loading.from_pipeline import model_from_pipeline

    return model_from_pipeline(pipe, **facts)


def _shipped_facts(model: Model, path: Path) -> None:
    """What a built-in model's ``dit.json`` says rules over the pipeline's defaults."""
    if not (path / "dit.json").is_file():
        return
    from dit_tools.models.backends.torch_network import PipelineTextEncoder

    facts = validation.read_json(path / "dit.json")
    model.defaults, model.alpha, model.notes = Defaults.of_facts(facts), bool(facts.get("alpha")), facts
    model.encode = PipelineTextEncoder(model.pipe, model.family, facts.get("max_tokens"))
