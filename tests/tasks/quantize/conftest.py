"""Folders of tiny pipelines and of their exports, written once a session."""

from tests.models.conftest import folders
from tests.tasks.export.conftest import exports, models

__all__ = ["exports", "folders", "models"]
