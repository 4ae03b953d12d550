"""Tiny pipelines and their exports, each made once a session when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.exports import FAMILIES, exported, saved


@pytest.fixture(scope="session")
def pipes() -> Callable[[str], Any]:
    """Name -> a tiny pipeline; not to be changed."""
    made: dict[str, Any] = {}

    def pipe(name: str) -> Any:
        if name not in made:
            made[name] = FAMILIES[name]()
        return made[name]

    return pipe


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name -> the folder of a tiny pipeline; not to be changed."""
    root = tmp_path_factory.mktemp("models")
    return lambda name: saved(name, root)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, models: Any) -> Callable[[str], Path]:
    """Name -> the folder of its export with default parts, in pieces too; not to be changed."""
    root = tmp_path_factory.mktemp("exports")
    return lambda name: exported(models(name), root / name, split=True)
