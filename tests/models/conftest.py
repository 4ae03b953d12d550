"""Folders of tiny pipelines, written once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> a folder with its tiny pipeline, made when it is asked for; not to be changed."""
    from tests.support.loading import FAMILIES

    root, made = tmp_path_factory.mktemp("models"), {}

    def folder(family: str) -> Path:
        if family not in made:
            FAMILIES[family].pipeline(root / family)
            made[family] = root / family
        return made[family]

    return folder
