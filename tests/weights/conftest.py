"""Folders of tiny pipelines, written once a session."""

from tests.models.conftest import folders

__all__ = ["folders"]
