"""``dit restore``: noise and compression artifacts taken out of photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import nearest
from dit_tools.jobs.events import Listener
from dit_tools.jobs.items import Item
from dit_tools.jobs.runner import Runner
from dit_tools.media.samples import Photo
from dit_tools.tasks.photo.network import repair
from dit_tools.tasks.photo.run import NetworkRequest, NetworkTask, open_model, runner

TASKS = ("auto", "denoise", "deblock")


@dataclass
class Request(NetworkRequest):
    """The command line of ``dit restore``."""

    task: str = "auto"


def assemble(request: Request, listen: Listener) -> Runner:
    """The run of a request, checked before a photograph is read. Raises the DitError of its faults."""
    if request.task not in TASKS:
        raise UsageError(f"--task {request.task[:20]}: no such task", nearest(request.task, list(TASKS)))
    model, facts = open_model(request, "restore")
    return runner(Restore(request, {"task": request.task, **facts}, model=model), "restored", listen)


@dataclass
class Restore(NetworkTask):
    """Restores photographs by the blind network."""

    command = "restore"

    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """See ``PhotoTask``."""
        made = repair(self.model, photo.samples, self.request.strength, self.tile)
        return replace(photo, samples=made), {}
