"""Which models are on this machine, what they tell of themselves, whether their files are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.core.registry import nearest
from dit_tools.models import photo
from dit_tools.models.loading import resolve, validation

CHUNK = 1 << 20  # bytes read at once
REINSTALL = "install dit again, or replace the folder"


@dataclass(frozen=True)
class Stored:
    """A model on this machine.

    ``kind``: builtin, folder or hub; ``facts``: its ``dit.json``, or ``photo.json`` of a network for
    photographs.
    """

    name: str
    kind: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all its files on disk."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    @property
    def card(self) -> str:
        """The text of its model card, without the table in front; empty without a card."""
        path = self.path / "README.md"
        if not path.is_file():
            return ""
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.startswith("---\n"):
            text = text.partition("\n---\n")[2]
        return text.strip()


@dataclass(frozen=True)
class Check:
    """What ``verify_files`` found: files by how they compare with what is recorded of them."""

    whole: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.damaged and not self.missing


def builtin_names() -> list[str]:
    """Names of the models that ship with dit, those for photographs included, sorted."""
    return sorted([*resolve.builtin_names(), *photo.names()])


def builtin_models() -> list[Stored]:
    """The models that ship with dit. Raises ModelError when their facts cannot be read."""
    return [_with_facts(name, "builtin", resolve.BUILTIN / name) for name in builtin_names()]


def hub_models() -> list[Stored]:
    """The pipelines in the hub's local cache, each at its newest revision."""
    import huggingface_hub as hub

    try:
        repos = hub.scan_cache_dir().repos
    except hub.CacheNotFound:
        return []
    found = []
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        revisions = sorted(repo.revisions, key=lambda revision: -revision.last_modified)
        paths = [revision.snapshot_path for revision in revisions]
        here = [path for path in paths if (path / "model_index.json").is_file()]
        if repo.repo_type == "model" and here:
            found.append(Stored(repo.repo_id, "hub", here[0]))
    return found


def locate(name: str) -> Stored:
    """A model by built-in name, folder or hub id. Raises ModelError; asks no network."""
    if name in builtin_names():
        return _with_facts(name, "builtin", resolve.BUILTIN / name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _with_facts(path.resolve().name, "folder", path)
    hub = resolve.HUB_ID.fullmatch(name)
    if hub:
        folder = resolve.cached(hub["id"], hub["revision"])
        if folder is None:
            raise ModelError(f"{name}: not on this machine", f"run 'dit models pull {name}'")
        return Stored(hub["id"], "hub", folder)
    names = builtin_names()
    hint = nearest(name, names) if names else "give a folder or OWNER/NAME"
    raise ModelError(f"no model {name!r}", hint)


def _with_facts(name: str, kind: str, path: Path) -> Stored:
    for facts in (path / "dit.json", path / photo.FACTS):
        if facts.is_file():
            return Stored(name, kind, path, validation.read_json(facts))
    return Stored(name, kind, path)


def verify_files(model: Stored) -> Check:
    """Compare every file with its recorded hash.

    Built-in models record SHA-256 among their facts; the hub's cache names files by their hash. A
    folder that records nothing is checked by its safetensors headers and indexes alone. Raises
    ModelError for such a folder when it is damaged, and for records that make no sense.
    """
    if "files" in model.facts:
        return _compare(model.path, dict(_recorded(model)))
    if model.kind == "hub":
        return _compare(model.path, dict(_named_by_hash(model.path)))
    validation.check_folder(model.path, allow_pickle=True)
    return Check(tuple(sorted(p.relative_to(model.path).as_posix() for p in model.path.rglob("*.safetensors"))))


def _recorded(model: Stored) -> Iterator[tuple[str, str]]:
    """File -> SHA-256 as the facts have it."""
    files = model.facts["files"]
    where = next(p for p in (model.path / "dit.json", model.path / photo.FACTS) if p.is_file())
    if not isinstance(files, dict):
        raise ModelError(f"{where}: 'files' is not a table", REINSTALL)
    for name, fact in files.items():
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not inside or not isinstance(fact, dict) or not isinstance(fact.get("sha256"), str):
            raise ModelError(f"{where}: bad record of {name[:80]!r}", REINSTALL)
        yield name, fact["sha256"]


def _named_by_hash(folder: Path) -> Iterator[tuple[str, str]]:
    """File -> hash in the hub's cache, where a snapshot links to files named by their hash."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            yield path.relative_to(folder).as_posix(), path.readlink().name


def _compare(folder: Path, recorded: dict[str, str]) -> Check:
    whole, damaged, missing = [], [], []
    for name, expected in recorded.items():
        path = folder / name
        if not path.is_file():
            missing.append(name)
        else:
            (whole if _digest(path, expected) == expected else damaged).append(name)
    return Check(tuple(whole), tuple(damaged), tuple(missing))


def _digest(path: Path, like: str) -> str:
    """SHA-256, or git's SHA-1 of a blob where the recorded hash is as short as that."""
    short = len(like) == 40
    digest = hashlib.sha1(usedforsecurity=False) if short else hashlib.sha256()
    if short:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
