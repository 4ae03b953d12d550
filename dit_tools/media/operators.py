"""Linear operators on images: what a measurement ``y = H x`` keeps of an image ``x``.

Images are arrays (B, C, H, W) of numpy, in any range. Each operator has ``apply`` (H), ``adjoint``
(its transpose) and ``inverse`` (a pseudo-inverse: ``H inverse(H x) = H x``, exactly but for
``Blur``, which is regularized).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Operator(ABC):
    """``apply``, its transpose and a pseudo-inverse."""

    @abstractmethod
    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """What is measured of images (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: np.ndarray, /) -> np.ndarray:
        """The transpose of H: ``<H x, y> = <x, H' y>``."""

    @abstractmethod
    def inverse(self, y: np.ndarray, /) -> np.ndarray:
        """Images with that measurement and nothing else."""

    def consistent(self, x: np.ndarray, y: np.ndarray, share: float = 1.0) -> np.ndarray:
        """``x`` with ``share`` of its error made up: at 1 the image nearest to it that measures ``y``."""
        return x + share * self.inverse(y - self.apply(x))


@dataclass(frozen=True, eq=False)
class Keep(Operator):
    """Pixels where ``mask`` (1, 1, H, W) is 1; the others are lost (inpainting)."""

    mask: np.ndarray

    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """The kept pixels, 0 elsewhere."""
        return x * self.mask

    adjoint = inverse = apply


@dataclass(frozen=True)
class Grey(Operator):
    """The mean of the colours (colourization)."""

    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """(B, 1, H, W)."""
        return x.mean(axis=1, keepdims=True)

    def adjoint(self, y: np.ndarray, /) -> np.ndarray:
        """A third of it in every colour."""
        return self.inverse(y) / 3

    def inverse(self, y: np.ndarray, /) -> np.ndarray:
        """The same in every colour."""
        return y.repeat(3, axis=1)


@dataclass(frozen=True)
class Pool(Operator):
    """The mean over squares of ``factor`` pixels, which divides both sides."""

    factor: int

    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """(B, C, H / factor, W / factor)."""
        batch, channels, height, width = x.shape
        cells = x.reshape(batch, channels, height // self.factor, self.factor, width // self.factor, self.factor)
        return cells.mean(axis=(3, 5))

    def adjoint(self, y: np.ndarray, /) -> np.ndarray:
        """Every value spread over its square."""
        return self.inverse(y) / self.factor**2

    def inverse(self, y: np.ndarray, /) -> np.ndarray:
        """Every value repeated in its square."""
        return y.repeat(self.factor, axis=2).repeat(self.factor, axis=3)


@dataclass(frozen=True)
class Blur(Operator):
    """A Gaussian of deviation ``sigma`` pixels, periodic at the edges.

    The inverse is Tikhonov's with ``damping``, for what a blur removed cannot be divided back.
    """

    sigma: float
    damping: float = 1e-3

    def _filtered(self, x: np.ndarray, inverse: bool) -> np.ndarray:
        import numpy as np

        rows, columns = np.fft.fftfreq(x.shape[2])[:, None], np.fft.rfftfreq(x.shape[3])
        kernel = np.exp(-2 * (math.pi * self.sigma) ** 2 * (rows**2 + columns**2))
        gain = kernel / (kernel**2 + self.damping) if inverse else kernel
        return np.fft.irfft2(np.fft.rfft2(x) * gain, s=x.shape[2:]).astype(x.dtype)

    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """The blurred images."""
        return self._filtered(x, inverse=False)

    adjoint = apply

    def inverse(self, y: np.ndarray, /) -> np.ndarray:
        """Sharpened as far as ``damping`` allows."""
        return self._filtered(y, inverse=True)


@dataclass(frozen=True)
class Bicubic(Operator):
    """Sides divided by ``factor`` with the antialiased cubic filter (a = -0.5), as Pillow and MATLAB do.

    ``size``: height and width of the images. The inverse is by singular values along each axis.
    """

    factor: int
    size: tuple[int, int]

    @cached_property
    def _matrices(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(_cubic(side, side // self.factor) for side in self.size)  # type: ignore[return-value]

    @cached_property
    def _inverses(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        return tuple(np.linalg.pinv(matrix) for matrix in self._matrices)  # type: ignore[return-value]

    def apply(self, x: np.ndarray, /) -> np.ndarray:
        """(B, C, H / factor, W / factor)."""
        rows, columns = self._matrices
        return rows @ x @ columns.T

    def adjoint(self, y: np.ndarray, /) -> np.ndarray:
        """The transposed filter."""
        rows, columns = self._matrices
        return rows.T @ y @ columns

    def inverse(self, y: np.ndarray, /) -> np.ndarray:
        """The smallest image that is reduced to ``y``."""
        rows, columns = self._inverses
        return rows @ y @ columns.T


def _cubic(long: int, short: int) -> np.ndarray:
    """The matrix (short, long) of one axis; weights outside the image are shared among those inside."""
    import numpy as np

    factor = long / short
    centres = (np.arange(short)[:, None] + 0.5) * factor
    d = abs(np.arange(long) + 0.5 - centres) / factor
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)
