"""Image codecs: what ``dit compress --method`` chooses from.

Contract: a codec turns an uint8 image (height, width, 3) into a
:class:`dit_tools.media.dit_file.DitFile` and back. ``setting`` is a whole number from 0 (the most
bytes) to ``worst``; bytes fall as it rises, so that a rate is found by bisection. What ``unpack``
returns for a file may differ between machines by two levels of 255; the symbols may not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from dit_tools.core.registry import MethodInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dit_tools.media.dit_file import DitFile


class Codec(ABC):
    """One way of coding images."""

    info: ClassVar[MethodInfo]
    number: ClassVar[int] = 0
    """What names the codec in a file."""
    worst: ClassVar[int] = 0

    @property
    @abstractmethod
    def digest(self) -> bytes:
        """Eight bytes that identify what its files are read with."""

    @abstractmethod
    def setting_of(self, quality: float) -> int:
        """The setting that ``--quality`` 0..100 means."""

    @abstractmethod
    def pack(self, image: NDArray, setting: int) -> DitFile:
        """Code an image (height, width, 3) uint8."""

    @abstractmethod
    def unpack(self, file: DitFile, run: Any) -> NDArray:
        """The image (height, width, 3) uint8 of a file.

        Args:
            file: What ``pack`` made, perhaps elsewhere.
            run: Computes the codec's network, see ``network``; None leaves the network out.

        Raises:
            InputError: The symbols do not match their checksum.
            ModelError: The file was made with other tables.
        """

    @abstractmethod
    def thumbnail(self, file: DitFile, longest: int) -> NDArray:
        """A small image, its longer side at most ``longest``, without the network."""
