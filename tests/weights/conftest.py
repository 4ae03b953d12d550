"""Folders of tiny pipelines and of their exports, written once a session."""

from tests.exporting.conftest import exports, models
from tests.models.conftest import folders

__all__ = ["exports", "folders", "models"]
