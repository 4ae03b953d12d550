"""Networks for photographs on ONNX Runtime: ``photo.json``, graphs, and one file of weights.

A folder holds ``photo.json``, ``model.safetensors`` and one graph for each scale, whose weights
are byte ranges of that file. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.core.registry import nearest
from dit_tools.models import onnx_session
from dit_tools.models.loading import validation
from dit_tools.models.loading.resolve import BUILTIN

FACTS = "photo.json"
VERSION = 1
DTYPES = ("auto", "float32", "int8")
DEVICES = ("auto", "cpu", "cuda", "tensorrt")


@dataclass
class PhotoModel:
    """A network that returns what is to be added to a photograph.

    Attributes:
        name: built-in name, or the folder's.
        revision: a fingerprint of the weights.
        task: ``superres`` or ``restore``.
        scales: what the result's sides may be multiplied by; (1,) for ``restore``.
        overlap: pixels around a tile from which on its inner part is that of the whole image.
        multiple: what the sides of its input must be multiples of.
        tile: side of a tile that keeps memory small.
        dtype, device: of the computation.
    """

    name: str
    revision: str
    task: str
    scales: tuple[int, ...]
    overlap: int
    multiple: int
    tile: int
    dtype: str
    device: str
    folder: Path
    _files: dict[int, str]
    _providers: list[str]
    _sessions: dict[int, Any] = field(default_factory=dict)

    def residual(self, image: Any, scale: int = 1) -> Any:
        """The network's result for one image.

        Args:
            image: (H, W, 3), float32 in [0, 1], sides multiples of ``multiple``.
            scale: one of ``scales``.

        Returns:
            (scale H, scale W, 3) float32, to be added to the image or its cubic enlargement.
        """
        import numpy as np

        batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
        (made,) = self._session(scale).run(None, {"image": batch})
        return made[0].transpose(1, 2, 0)

    def _session(self, scale: int) -> Any:
        if scale not in self._sessions:
            path = self.folder / self._files[scale]
            try:
                self._sessions[scale] = onnx_session.open_session(path, self._providers)
            except Exception as error:  # the runtime raises kinds of its own for a damaged graph
                raise ModelError(f"{path}: cannot be opened: {str(error)[:120]}", "install dit again") from None
        return self._sessions[scale]


def names() -> list[str]:
    """Names of the built-in networks for photographs, sorted."""
    return sorted(path.parent.name for path in BUILTIN.glob(f"*/{FACTS}"))


def load(reference: str | None, task: str, device: str | None, dtype: str | None) -> PhotoModel:
    """The network that ``-m`` means, or the built-in one of the task.

    Raises UsageError for a name, precision or device that does not exist, ModelError for a folder
    that is damaged or made for another task, UnsupportedError for what this machine lacks.
    """
    device, dtype = device or "auto", dtype or "auto"
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: not for photographs", f"use one of {', '.join(DTYPES)}")
    if device.partition(":")[0] not in DEVICES:
        raise UsageError(f"--device {device}: no such device here", f"use one of {', '.join(DEVICES)}")
    folder = _folder(reference or task)
    facts = _facts(folder)
    if facts["task"] != task:
        raise ModelError(f"--model {folder.name}: made for 'dit {facts['task']}'", f"not for 'dit {task}'")
    chosen = "float32" if dtype == "auto" else dtype
    providers = _providers(device)
    return PhotoModel(
        name=folder.name,
        revision=str(facts["revision"]),
        task=task,
        scales=tuple(sorted(int(scale) for scale in facts["graphs"])),
        overlap=int(facts["overlap"]),
        multiple=int(facts["multiple"]),
        tile=int(facts["tile"]),
        dtype=chosen,
        device="cpu" if len(providers) == 1 else "cuda",
        folder=folder,
        _files={int(scale): _file(folder, entry, chosen) for scale, entry in facts["graphs"].items()},
        _providers=providers,
    )


def _folder(reference: str) -> Path:
    if reference in names():
        return BUILTIN / reference
    path = Path(reference).expanduser()
    if (path / FACTS).is_file():
        return path.resolve()
    if path.is_dir():
        raise ModelError(f"--model {reference}: no {FACTS} in this folder", "give one that 'dit train' made")
    raise ModelError(f"--model {reference}: no such model", nearest(reference, names()))


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    facts = validation.read_json(path)
    try:
        if facts["version"] != VERSION or facts["task"] not in ("superres", "restore"):
            raise ValueError
        whole = [int(facts[key]) for key in ("overlap", "multiple", "tile")]
        if min(whole) < 0 or max(whole) > 1 << 14 or whole[1] < 1 or not facts["graphs"]:
            raise ValueError
        [int(scale) for scale in facts["graphs"]]
        str(facts["revision"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{path}: damaged, or of a newer version", "export the model again") from None
    return facts


def _file(folder: Path, entry: Any, dtype: str) -> str:
    name = entry.get(dtype) if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise UnsupportedError(f"--dtype {dtype}: {folder.name} has no such graph", "use --dtype float32")
    if Path(name).name != name or not (folder / name).is_file():
        raise ModelError(f"{folder}: its graph {name[:60]!r} is missing", "export the model again")
    return name


def _providers(device: str) -> list[str]:
    from dit_tools.models.backends.onnx_network import GPUS, providers

    chosen = providers(device)
    kind = device.partition(":")[0]
    if kind in GPUS and len(chosen) == 1:
        raise UnsupportedError(f"--device {device}: ONNX Runtime has no working GPU here", "use --device cpu")
    return chosen
