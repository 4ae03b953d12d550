"""What ``-m`` means: a built-in name, a folder, a single file or a hub id becomes a path on disk.

Looked up in this order: a built-in name, an existing path, the hub's local cache, the hub itself.
What is in the cache is used as it is, without asking the network; ``pull`` renews it. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.registry import nearest
from dit_tools.models.loading import gguf_file, validation

BUILTIN = Path(__file__).resolve().parents[2] / "builtin"
HUB_ID = re.compile(r"(?P<id>[\w\-.]{1,96}/[\w\-.]{1,96})(?:@(?P<revision>[\w\-./]{1,100}))?")
FILES = (".safetensors", ".gguf", *validation.PICKLES)
SMALL = (".json", ".txt", ".model", ".jinja")  # configs, vocabularies, tokenizers, chat templates
DOCUMENTS = ("model_index.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
UNREACHABLE = "not on this machine, and the hub cannot be reached"
LIST = "'dit models list' shows the built-in models"


@dataclass(frozen=True)
class Resolved:
    """Where a model lies. ``revision``: hub commit, or a fingerprint of the content."""

    kind: Literal["builtin", "folder", "file", "hub"]
    path: Path
    name: str
    revision: str


def builtin_names() -> list[str]:
    """Names of the models that ship with dit, sorted."""
    return sorted(path.parent.name for path in BUILTIN.glob("*/dit.json"))


def resolve(reference: str, *, allow_pickle: bool = False) -> Resolved:
    """Find a model. Raises ModelError, with the remedy, when there is none that may be loaded.

    ``allow_pickle``: pickled weight files are accepted, and downloaded where nothing else is there.
    Raises UnsupportedError for a file format that dit does not read.
    """
    if reference in builtin_names():
        folder = BUILTIN / reference
        facts = validation.read_json(folder / "dit.json")
        return Resolved("builtin", folder, reference, str(facts.get("revision", "")))
    path = Path(reference).expanduser()
    kind = _kind(path) if reference else ""
    if kind == "folder":
        return _folder(path)
    if kind == "file":
        return _file(path, allow_pickle)
    hub = HUB_ID.fullmatch(reference)
    if hub and not reference.startswith((".", "~")) and path.suffix not in FILES:
        return _hub(reference, hub["id"], hub["revision"], allow_pickle)
    _not_found(reference)
    raise AssertionError  # _not_found always raises


def _kind(path: Path) -> str:
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else ""
    except OSError:  # a name too long for the file system, say
        return ""


def _not_found(reference: str) -> None:
    if re.search(r"[/\\]", reference) or Path(reference).suffix in FILES:
        raise ModelError(f"--model {reference}: no such file or folder", "check the path")
    names = builtin_names()
    hint = nearest(reference, names) if names else "give a folder, a file or OWNER/NAME"
    raise ModelError(f"--model {reference}: no such model", f"{hint} ({LIST})")


def _folder(path: Path) -> Resolved:
    if not (path / "model_index.json").is_file():
        inside = [name for name in ("transformer", "unet") if (path.parent / name) == path]
        hint = "give the folder above it" if inside else "give a folder that diffusers saved"
        raise ModelError(f"--model {path}: no model_index.json in this folder", hint)
    validation.components(path)
    return Resolved("folder", path, path.resolve().name, validation.content_hash(path))


def _file(path: Path, allow_pickle: bool) -> Resolved:
    if path.suffix in validation.PICKLES:
        if not allow_pickle:
            raise ModelError(f"--model {path}: pickled weights can run code when opened", validation.NO_PICKLE)
    elif path.suffix == ".gguf":
        gguf_file.header(path)
    elif path.suffix != ".safetensors":
        raise UnsupportedError(
            f"--model {path}: {path.suffix or 'this kind of file'} is not read",
            "give a .safetensors or .gguf file, or a folder in diffusers format",
        )
    else:
        validation.header(path)
    return Resolved("file", path, path.stem, validation.content_hash(path))


# the hub ----------------------------------------------------------------------------------------


def _hub(reference: str, name: str, revision: str | None, allow_pickle: bool) -> Resolved:
    folder = cached(name, revision)
    if folder is None:
        folder = pull(reference, allow_pickle=allow_pickle)
    validation.components(folder)
    return Resolved("hub", folder, name, folder.name)


def cached(name: str, revision: str | None = None) -> Path | None:
    """The snapshot folder of a hub model in the local cache, when all its parts are there."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(name, "model_index.json", revision=revision)
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    try:
        validation.check_folder(folder, allow_pickle=True)
    except ModelError as error:
        if "missing" in error.message or "no weights" in error.message:
            return None  # a download was cut off
        raise
    return folder


def pull(reference: str, *, allow_pickle: bool = False) -> Path:
    """Download a hub model, or its newer files, and return the snapshot's folder.

    Only the folders that ``model_index.json`` names are fetched, never Python files, and pickled
    weights only with ``allow_pickle``. Raises ModelError when it is not there, gated, refused by
    the checks, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    found = HUB_ID.fullmatch(reference)
    if not found:
        raise ModelError(f"--model {reference}: not a hub id", "give OWNER/NAME or OWNER/NAME@REV")
    name, revision = found["id"], found["revision"]
    with _hub_errors(reference):
        # asked first because it fails at once, where a download retries for twenty seconds
        info = hub.HfApi().model_info(name, revision=revision, timeout=20)
        index = Path(hub.hf_hub_download(name, "model_index.json", revision=revision))
        there = [file.rfilename for file in info.siblings or ()]
        files = wanted(there, list(validation.components(index.parent)), allow_pickle)
        folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=files))
    validation.check_folder(folder, allow_pickle=allow_pickle)
    return folder


def wanted(files: Sequence[str], parts: Sequence[str], allow_pickle: bool) -> list[str]:
    """Which of a repository's files make up the pipeline of these parts.

    Of each part's weights one set is taken: safetensors in full, else their half-precision variant,
    else, where allowed, pickles. Code and what else lies there stays.
    """
    chosen = [file for file in files if file in DOCUMENTS]
    for part in parts:
        here = [file for file in files if file.startswith(f"{part}/") and file.count("/") == 1]
        chosen += [file for file in here if file.endswith(SMALL)]
        full = [file for file in here if file.endswith(".safetensors")]
        plain = [file for file in full if file.count(".") == 1]
        half = [file for file in full if ".fp16." in file]
        pickles = [file for file in here if file.endswith(".bin") and file.count(".") == 1]
        chosen += plain or half or (pickles if allow_pickle else [])
    return chosen


@contextmanager
def _hub_errors(reference: str) -> Iterator[None]:
    """Turn the errors of the hub and network libraries into one line with a remedy."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise _explained(f"--model {reference}", reference.partition("@")[0], error) from None


def _explained(where: str, name: str, error: Exception) -> ModelError:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{name}"
    known: tuple[tuple[type[Exception], str, str], ...] = (  # the narrower class first
        (errors.GatedRepoError, "the owner asks you to accept terms first", f"do so at {page}, then 'hf auth login'"),
        (errors.RevisionNotFoundError, "no such revision on the hub", "leave out '@...'"),
        (
            errors.RepositoryNotFoundError,
            "not on the hub, or private",
            "check the name; for a private model run 'hf auth login'",
        ),
        (errors.LocalEntryNotFoundError, UNREACHABLE, f"connect, or give a folder; {LIST}"),
        (
            errors.EntryNotFoundError,
            "no model_index.json, so it is no diffusers pipeline",
            "download its .safetensors file and give it with --base",
        ),
        (errors.HFValidationError, "not a hub id", "give OWNER/NAME or OWNER/NAME@REVISION"),
    )
    for kind, message, hint in known:
        if isinstance(error, kind):
            return ModelError(f"{where}: {message}", hint)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ModelError(f"{where}: access denied", f"see {page}, then 'hf auth login'")
    if status is not None:
        return ModelError(f"{where}: the hub answers {status}", "try again later")
    if isinstance(error, ConnectionError | TimeoutError) or _network(error):
        return ModelError(f"{where}: {UNREACHABLE}", f"connect, or give a folder; {LIST}")
    line = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return ModelError(f"{where}: {line}", "check disk, rights and network")


def _network(error: Exception) -> bool:
    """Whether the error comes from the hub library's HTTP client, which changes by version."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests", "urllib3")
