"""Families: how each transformer class is called, one file each.

A file holds a ``Family`` (``models.family``) as ``FAMILY``; nothing else needs to name it. Latents stay
unpacked (B, C, h, w); ``inputs(x, t, condition)`` gives the transformer's own ``forward`` arguments,
which are also the ONNX graph's input names; ``read`` turns the raw output into a ``Prediction``.
Packing, ``t * 1000``, sign flips and latent statistics live there and nowhere else. Installed packages
add families by entry points in the group ``dit.families``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Collection
from pathlib import Path

from dit_tools.models.family import Family


def names() -> list[str]:
    """Names of dit's own families, sorted, without importing any."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def families() -> dict[str, type[Family]]:
    """Name -> family of all families: dit's own, then those of installed packages."""
    found = {name: _own(name) for name in names()}
    for family in _installed():
        found.setdefault(family.name, family)
    return found


def family_class(pipeline: str) -> type[Family] | None:
    """The family of a diffusers pipeline class, or None when there is none."""
    likely = sorted(names(), key=lambda name: not _mentions(name, pipeline))  # the others need not be imported
    for name in likely:
        if pipeline in (family := _own(name)).pipelines:
            return family
    return next((family for family in _installed() if pipeline in family.pipelines), None)


def pipelines() -> list[str]:
    """The diffusers pipeline classes that some family serves, sorted."""
    return sorted(pipeline for family in families().values() for pipeline in family.pipelines)


def detect(tensors: Collection[str]) -> type[Family] | None:
    """The family of a file with these tensor names, or None for an unknown one."""
    present = set(tensors)
    for family in families().values():
        if any(present.issuperset(mark.split("+")) for mark in family.marks):
            return family
    return None


def _mentions(name: str, pipeline: str) -> bool:
    """Whether a family's source holds the name of a pipeline class; False where there is no source."""
    files = (Path(folder) / f"{name}.py" for folder in __path__)
    return any(pipeline in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _own(name: str) -> type[Family]:
    return importlib.import_module(f"{__name__}.{name}").FAMILY


@functools.cache
def _installed() -> tuple[type[Family], ...]:
    from importlib.metadata import entry_points

    return tuple(point.load() for point in entry_points(group="dit.families"))
