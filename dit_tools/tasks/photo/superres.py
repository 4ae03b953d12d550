"""``dit superres``: photographs made larger."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.items import Item
from dit_tools.jobs.runner import Runner
from dit_tools.media.image import MAX_PIXELS
from dit_tools.media.samples import Photo, to_float, to_samples
from dit_tools.tasks.photo.network import enlarge
from dit_tools.tasks.photo.run import NetworkRequest, NetworkTask, open_model, runner

if TYPE_CHECKING:
    import numpy as np

DEFAULT_SCALE = 4.0
MOST = 64.0  # of --scale: three passes of x4
PASSES = 3
SIZE = re.compile(r"([0-9]{1,6})[xX]([0-9]{1,6})")


@dataclass
class Request(NetworkRequest):
    """The command line of ``dit superres``; at most one of the three sizes is given."""

    scale: float | None = None
    size: str | None = None
    megapixels: float | None = None


@dataclass(frozen=True)
class Goal:
    """How large a result should be; exactly one field is set."""

    scale: float | None = None
    box: tuple[int, int] | None = None  # width, height
    megapixels: float | None = None

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result of a photograph of ``size`` (height, width).

        Raises InputError when that is no enlargement, or over 200 megapixels.
        """
        height, width = size
        made = self._wanted(height, width)
        if made[0] * made[1] > MAX_PIXELS:
            raise InputError(f"{made[1]}x{made[0]} is over {MAX_PIXELS // 10**6} megapixels", "give a smaller --scale")
        if min(made[0] - height, made[1] - width) < 0 or made == size:
            raise InputError(f"is {width}x{height} already, and would become {made[1]}x{made[0]}",
                             "give a larger size, or leave it out")  # fmt: skip
        return made

    def _wanted(self, height: int, width: int) -> tuple[int, int]:
        if self.box:
            factor = min(self.box[0] / width, self.box[1] / height)
        elif self.megapixels:
            factor = math.sqrt(self.megapixels * 1e6 / (height * width))
        else:
            factor = self.scale or DEFAULT_SCALE
        return max(1, round(height * factor)), max(1, round(width * factor))

    def __str__(self) -> str:
        if self.box:
            return f"size {self.box[0]}x{self.box[1]}"
        return f"{self.megapixels:g} megapixels" if self.megapixels else f"x{self.scale:g}"


def goal(request: Request) -> Goal:
    """What the three options for the size say. Raises UsageError."""
    given = [name for name in ("scale", "size", "megapixels") if getattr(request, name) is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} exclude each other", "give one of them")
    if request.size is not None:
        match = SIZE.fullmatch(request.size)
        if not match or not int(match[1]) or not int(match[2]):
            raise UsageError(f"--size {request.size[:20]}: not a size", "give WIDTHxHEIGHT, such as 3840x2160")
        return Goal(box=(int(match[1]), int(match[2])))
    if request.megapixels is not None:
        if not 0 < request.megapixels <= MAX_PIXELS / 1e6:
            raise UsageError(f"--megapixels {request.megapixels:g}: out of range",
                             f"give a number up to {MAX_PIXELS // 10**6}")  # fmt: skip
        return Goal(megapixels=request.megapixels)
    scale = DEFAULT_SCALE if request.scale is None else request.scale
    if not 1 < scale <= MOST:
        raise UsageError(f"--scale {scale:g}: out of range",
                         f"give a number above 1, up to {MOST:g}; 'dit superres' only enlarges")  # fmt: skip
    return Goal(scale=scale)


def assemble(request: Request, listen: Listener) -> Runner:
    """The run of a request, checked before a photograph is read. Raises the DitError of its faults."""
    wanted = goal(request)
    model, facts = open_model(request, "superres")
    task = Superres(request, {"scale": str(wanted), **facts}, model=model, goal=wanted)
    return runner(task, "superres", listen)


@dataclass
class Superres(NetworkTask):
    """Enlarges photographs."""

    goal: Goal = field(kw_only=True)
    command = "superres"

    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """See ``PhotoTask``. Raises InputError for a photograph that is as large already."""
        try:
            target = self.goal.of(photo.size)
            passes = chosen(photo.size, target, self.model.scales)
        except InputError as error:
            raise InputError(f"{item.source}: {error.message}", error.hint) from None
        strength = self.request.strength
        made = photo.samples
        for number, scale in enumerate(passes):
            last = number + 1 == len(passes) and (scale * made.shape[0], scale * made.shape[1]) == target
            bits = photo.bits if last else 16  # a result that goes on is rounded once, at the end
            made = enlarge(self.model, made, scale, strength, self.tile, bits)
        if made.shape[:2] != target:
            made = reduced(made, target, photo.bits)
        return replace(photo, samples=made), {"passes": "x".join(map(str, passes))}


def chosen(size: tuple[int, int], target: tuple[int, int], scales: Sequence[int]) -> tuple[int, ...]:
    """The network's passes whose product reaches ``target`` with the fewest pixels to spare.

    Raises InputError where the result before its final reduction is over 200 megapixels.
    """
    factor = max(target[0] / size[0], target[1] / size[1])
    every = (c for n in range(1, PASSES + 1) for c in itertools.combinations_with_replacement(scales[::-1], n))
    enough = [c for c in every if math.prod(c) >= factor - 1e-9]
    if not enough:
        raise InputError(f"x{factor:.1f} is more than the network can do", f"give at most x{max(scales) ** PASSES}")
    best = min(enough, key=lambda c: (math.prod(c), len(c)))
    if math.prod(best) ** 2 * size[0] * size[1] > MAX_PIXELS:
        between = f"{math.prod(best) * size[1]}x{math.prod(best) * size[0]}"
        raise InputError(f"{between}, which is needed on the way, is over {MAX_PIXELS // 10**6} megapixels",
                         "give a whole or a smaller --scale")  # fmt: skip
    return best


def reduced(samples: np.ndarray, target: tuple[int, int], bits: int) -> np.ndarray:
    """Samples (H, W, C) made smaller to ``target`` (height, width) by area, at ``bits``.

    Colours are weighted with their opacity, so that hidden ones do not show at an edge.
    """
    import cv2
    import numpy as np

    def small(pixels: np.ndarray) -> np.ndarray:
        return cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_AREA).reshape(*target, -1)

    if samples.shape[2] != 4:
        return to_samples(to_float(small(samples)), bits)
    pixels = to_float(samples)
    colours, alpha = pixels[:, :, :3], pixels[:, :, 3:]
    opacity, plain = small(alpha), small(np.ascontiguousarray(colours))
    weighted = small(colours * alpha) / np.maximum(opacity, 1e-6)
    return to_samples(np.concatenate([np.where(opacity > 0, weighted, plain), opacity], axis=2), bits)
