"""``dit degrade``: photographs spoilt on purpose, for training pairs and benchmarks."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.items import Item
from dit_tools.jobs.runner import Runner
from dit_tools.media.samples import Photo, to_float, to_samples
from dit_tools.methods import degradation
from dit_tools.methods.degradation import Chain
from dit_tools.tasks.photo.run import PhotoTask, runner
from dit_tools.tasks.photo.run import Request as CommonRequest


@dataclass
class Request(CommonRequest):
    """The command line of ``dit degrade``."""

    degrade: str = "noise"
    seed: int = 0


def assemble(request: Request, listen: Listener) -> Runner:
    """The run of a request, checked before a photograph is read. Raises the DitError of its faults."""
    chain = degradation.parse(request.degrade)
    if not 0 <= request.seed < 1 << 63:
        raise UsageError(f"--seed {request.seed}: out of range", "give a number from 0 to 2^63 - 1")
    options = {"degrade": str(chain), "seed": request.seed}
    return runner(Degrade(request, options, chain=chain), "degraded", listen)


@dataclass
class Degrade(PhotoTask):
    """Degrades photographs."""

    command = "degrade"
    request: Request
    chain: Chain = field(kw_only=True)

    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """The photograph after every step; alpha stays, and is resized with the colours.

        The random numbers depend on the seed and on the file's name, not on its place in the run.
        """
        import cv2
        import numpy as np

        name = zlib.crc32(os.fsencode(Path(item.source).name))
        rng = np.random.default_rng([self.request.seed, name])
        pixels = to_float(photo.samples)
        colours = np.ascontiguousarray(pixels[:, :, :3])
        made = self.chain.apply(colours, rng)
        if pixels.shape[2] == 4:
            alpha = pixels[:, :, 3:]
            if made.shape[:2] != alpha.shape[:2]:
                size = (made.shape[1], made.shape[0])
                alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)[:, :, None]
            made = np.concatenate([made, alpha], axis=2)
        return replace(photo, samples=to_samples(made, photo.bits)), {}
