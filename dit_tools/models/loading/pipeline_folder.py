"""The diffusers pipeline of a folder, with everything checked that the libraries only log."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError, ModelError, UnsupportedError
from dit_tools.models.loading import validation


def from_folder(folder: Path, dtype: Any, *, allow_pickle: bool = False, **parts: Any) -> Any:
    """The diffusers pipeline of a checked folder; ``parts`` replace those of the folder.

    Raises ModelError for a class that diffusers has not, or a network whose weights lack tensors.
    """
    import diffusers

    kind = validation.pipeline_class(folder)
    if not isinstance(getattr(diffusers, kind, None), type):
        raise ModelError(
            f"{folder}: diffusers {diffusers.__version__} has no {kind}", "update it with 'pip install -U diffusers'"
        )
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        str(folder),
        torch_dtype=dtype,
        use_safetensors=None if allow_pickle else True,
        variant=_variant(folder, parts),
        local_files_only=True,
        trust_remote_code=False,
        **parts,
    )
    for part, (library, _) in validation.components(folder).items():
        module = getattr(pipe, part, None)
        if part in parts or not hasattr(module, "parameters") or _quantized(module):
            continue
        (_check_complete if library == "diffusers" else _check_count)(module, folder / part)
    return pipe


def _variant(folder: Path, parts: Any) -> str | None:
    """``fp16`` where a folder holds half-precision variants only."""
    files = [
        path
        for part in validation.components(folder)
        if part not in parts
        for path in validation.weight_files(folder / part)
    ]
    return "fp16" if files and all(".fp16." in path.name for path in files) else None


def _quantized(module: Any) -> bool:
    return getattr(module, "hf_quantizer", None) is not None


def _check_complete(module: Any, folder: Path) -> None:
    """The libraries fill tensors that a file lacks with random numbers and only log it."""
    files = validation.weight_files(folder)
    present = {name for path in files for name in validation.header(path)}
    lacking = [
        key
        for key in module.state_dict()
        if key not in present and ".attentions." not in key  # renamed since the first models
    ]
    if files and lacking:
        raise ModelError(f"{folder}: its weights lack {len(lacking)} tensors, such as {lacking[0]}", validation.DAMAGED)


def _check_count(module: Any, folder: Path) -> None:
    """The same for text encoders: their tensors are renamed on loading, so numbers are counted.

    Shared tensors count once on both sides.
    """
    files = validation.weight_files(folder)
    there = sum(math.prod(entry["shape"]) for path in files for entry in validation.header(path).values())
    wanted = sum(parameter.numel() for parameter in module.parameters())
    if files and there < wanted:
        raise ModelError(
            f"{folder}: holds {there} of the {wanted} weights of {type(module).__name__}", validation.DAMAGED
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of the libraries: stderr is dit's own."""
    import warnings

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the libraries as one line that names the model."""
    try:
        yield
    except DitError:
        raise
    except ImportError as error:
        line = str(error).strip().splitlines()[0][:200]
        raise UnsupportedError(f"--model {path}: {line}", "install what it names") from error
    except (pickle.PickleError, EOFError) as error:
        raise ModelError(
            f"--model {path}: a pickle that is damaged or holds more than weights",
            "do not use it, or convert it to safetensors where it came from",
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        line = line.partition(". ")[0][:200]  # the first sentence
        raise ModelError(f"--model {path}: {line}", validation.DAMAGED) from error
