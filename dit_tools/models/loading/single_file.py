"""A pipeline from one safetensors file, with everything the file lacks taken from a base model.

A file holds either the transformer alone (as most fine-tunes are shared) or a whole checkpoint.
Configs, tokenizers and missing parts come from ``--base``, a folder or hub id of the same family;
without it the family is told from the names of the tensors and its original model is used, where it
is in the cache or can be downloaded.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models import families
from dit_tools.models.family import Family
from dit_tools.models.loading import gguf_file, gguf_loader, quantized, validation
from dit_tools.models.loading.resolve import resolve

GGUF = ".gguf"
WHOLE = ("first_stage_model.", "vae.")  # prefixes of an autoencoder inside a checkpoint
WRAPPER = "model.diffusion_model."


def detect(names: Collection[str]) -> type[Family] | None:
    """The family of a file with these tensor names, or None for an unknown one."""
    return families.detect({name.removeprefix(WRAPPER) for name in names})


def load_file(path: Path, base: str | None, dtype: Any, *, allow_pickle: bool) -> Any:
    """The diffusers pipeline of one weight file.

    Raises ModelError when the file does not fit the base model or no base is at hand,
    UnsupportedError for weights that were quantized to 8 bits.
    """
    names = _names(path)
    folder = _base(path, base, detect(names), allow_pickle)
    parts = validation.components(folder)
    part = next((name for name in ("transformer", "unet") if name in parts), None)
    if part is None:
        raise ModelError(f"--base {base}: has neither transformer nor unet", "give another base")
    validation.check_folder(folder, allow_pickle=allow_pickle, without=part)
    if any(name.startswith(WHOLE) for name in names):
        return _whole(path, folder, dtype)
    module = _module(path, folder, part, str(parts[part][1]), dtype)
    from dit_tools.models.loading.pipeline_folder import from_folder

    return from_folder(folder, dtype, allow_pickle=allow_pickle, **{part: module})


def _names(path: Path) -> frozenset[str]:
    if path.suffix in validation.PICKLES:
        return frozenset()
    if path.suffix == GGUF:
        return frozenset(gguf_file.header(path))
    tensors = validation.header(path)
    if any(entry["dtype"].startswith(("F8", "F4", "F6")) for entry in tensors.values()):
        raise UnsupportedError(
            f"--model {path}: weights of 8 bits or fewer are not read from single files", "use a half-precision file"
        )
    return frozenset(tensors)


def _base(path: Path, base: str | None, family: type[Family] | None, allow_pickle: bool) -> Path:
    """The folder with configs and other parts."""
    if family is None and base is None:
        raise ModelError(
            f"--model {path}: its tensors are of no family that dit knows", "name a model of the same kind with --base"
        )
    try:
        found = resolve(base or (family.original if family else ""), allow_pickle=allow_pickle)
    except ModelError as error:
        if base is not None or family is None:
            raise ModelError(error.message.replace("--model", "--base"), error.hint) from None
        raise ModelError(
            f"--model {path}: a {family.name} file without text encoder, autoencoder and configs",
            f"name a {family.name} model with --base, such as {family.original}",
        ) from None
    if found.kind == "file":
        raise ModelError(f"--base {base}: a file", "give a folder or a hub id")
    _same_family(path, found.path, family)
    return found.path


def _same_family(path: Path, folder: Path, family: type[Family] | None) -> None:
    theirs = families.family_class(validation.pipeline_class(folder))
    if family and theirs and family is not theirs:
        raise ModelError(f"--model {path}: a {family.name} file on a {theirs.name} base", "change --base")


def _whole(path: Path, folder: Path, dtype: Any) -> Any:
    """A checkpoint with its autoencoder and, mostly, its text encoders."""
    import diffusers

    made = getattr(diffusers, validation.pipeline_class(folder))
    if not hasattr(made, "from_single_file"):
        raise UnsupportedError(
            f"--model {path}: {made.__name__} cannot be read from one file", "use a folder in diffusers format"
        )
    return made.from_single_file(str(path), config=str(folder), torch_dtype=dtype, local_files_only=True)


def _module(path: Path, folder: Path, part: str, name: str, dtype: Any) -> Any:
    """The transformer of the file, with the base model's config."""
    import diffusers

    made = getattr(diffusers, name)
    if path.suffix == GGUF and _diffusers_names(path, made, folder / part):
        return gguf_loader.load(path, quantized.empty(folder / part, name), dtype)
    _check_names(path, made, folder / part)
    if not hasattr(made, "from_single_file"):
        return _plain(made, path, folder / part, dtype)
    try:
        module = made.from_single_file(
            str(path),
            config=str(folder),
            subfolder=part,
            torch_dtype=dtype,
            local_files_only=True,
            **_gguf_options(path, dtype),
        )
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise _misfit(path, name, str(error)) from error
    lacking = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
    if lacking:
        raise _misfit(path, name, f"lacks {len(lacking)} tensors such as {lacking[0]}")
    return module


def _diffusers_names(path: Path, made: Any, folder: Path) -> bool:
    """Whether most tensors of a GGUF file have the names that diffusers gives them."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        wanted = set(made.from_config(made.load_config(folder)).state_dict())
    return len(wanted & _names(path)) > len(wanted) / 2 or not hasattr(made, "from_single_file")


def _gguf_options(path: Path, dtype: Any) -> dict[str, Any]:
    """What diffusers must be told to read a GGUF file in a model's original names."""
    if path.suffix != GGUF:
        return {}
    from diffusers import GGUFQuantizationConfig

    return {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype)}


def _check_names(path: Path, made: Any, folder: Path) -> None:
    """A file in diffusers' own names must have them all; one in other names is converted later."""
    from accelerate import init_empty_weights

    if path.suffix in (GGUF, *validation.PICKLES):
        return
    with init_empty_weights():
        wanted = set(made.from_config(made.load_config(folder)).state_dict())
    lacking = sorted(wanted - validation.header(path).keys())
    if 0 < len(lacking) < len(wanted) / 2:
        raise _misfit(path, made.__name__, f"lacks {len(lacking)} tensors such as {lacking[0]}")


def _misfit(path: Path, name: str, why: str) -> ModelError:
    line = (why.strip().splitlines() or ["unknown names"])[0][:160]
    return ModelError(
        f"--model {path}: does not fit {name} ({line})", "the file is damaged or of another model; change --base"
    )


def _plain(made: Any, path: Path, folder: Path, dtype: Any) -> Any:
    """A file in diffusers' names for a class that cannot read single files (PixArt, DiT)."""
    import torch
    from safetensors.torch import load_file as tensors_of

    module = made.from_config(made.load_config(folder))
    if path.suffix in validation.PICKLES:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    else:
        tensors = tensors_of(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise _misfit(path, made.__name__, reason[0]) from None
    return module.to(dtype).eval()
