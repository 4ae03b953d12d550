"""The integer tables of the wavelet codec: weights of contexts and frequencies of symbols.

They are counted once from photographs (``dit_tools.tasks.train.codec``), shipped with the decoder
network and identified by a digest in every file. Loading checks every shape, type and bound, so
that a damaged model file is refused before it reaches the coder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import ModelError
from dit_tools.media.wavelet.contexts import PHASES, UNIT, taps
from dit_tools.media.wavelet.entropy import BUCKETS, SYMBOLS, thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
"""The version of the arithmetic: a file made by another one is refused by its digest."""
MOST_TAPS = max(len(taps(o, c, p)) for o in range(3) for c in range(3) for p in range(4))


class Tables:
    """Weights and frequency tables, with the coder's models made on first use.

    Args:
        arrays: ``weights`` (rates, depths, 3, 3, 4, 1 + taps) int32, ``values`` (rates, depths, 2,
            2, buckets, symbols), ``low`` (2, symbols), ``flags`` (rates, depths, 3, 3, 2), all
            uint16 and from 1; ``steps`` (rates,) int32, the step (in 1/256) of each class.

    Raises:
        ModelError: A shape, type or bound is wrong.
    """

    def __init__(self, arrays: dict[str, NDArray]):
        self.arrays = arrays
        self.rates, self.depths = _checked(arrays)
        self.lookup, self.shifts = thresholds()
        self.digest = digest_of(arrays)
        self._models: dict[Any, Any] = {}
        self._costs: dict[Any, NDArray] = {}

    @classmethod
    def load(cls, path: Path) -> Tables:
        """Read a safetensors file of tables."""
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
        except Exception as error:
            raise ModelError(f"{path}: no codec tables ({error})", "install dit again") from error
        return cls(arrays)

    def weights(self, rate: int, depth: int, orientation: int, channel: int, phase: int) -> NDArray:
        """The constant and the weights of one pass's context."""
        count = 1 + len(taps(orientation, channel, phase))
        return self.arrays["weights"][rate, depth, orientation, channel, phase, :count]

    def frequencies(self, key: Any) -> NDArray:
        """Frequencies of the table of that key, as :mod:`.entropy` names them."""
        if key[0] == "low":
            return self.arrays["low"][key[1]]
        if key[0] == "flag":
            return self.arrays["flags"][key[1:]]
        return self.arrays["values"][key]

    def models(self, key: Any) -> Any:
        """The coder's model of the table of that key."""
        if key not in self._models:
            import constriction  # it has no types
            import numpy as np

            # Integers below 2 ** 16 and their sums are exact in a double, whatever the machine.
            exact = self.frequencies(key).astype(np.float64)
            stream: Any = constriction.stream  # type: ignore[attr-defined]
            self._models[key] = stream.model.Categorical(exact, perfect=False)
        return self._models[key]

    def costs(self, key: Any) -> NDArray:
        """Bits of each symbol of the table of that key; used by the encoder only."""
        if key not in self._costs:
            import numpy as np

            counts = self.frequencies(key).astype(np.float64)
            self._costs[key] = np.log2(counts.sum() / counts)
        return self._costs[key]

    def rate_of(self, step: float) -> int:
        """The class of rates whose step is nearest (in ratio)."""
        import numpy as np

        return int(np.abs(np.log(self.arrays["steps"] / 256.0) - np.log(step)).argmin())


FOLDER = Path(__file__).resolve().parents[2] / "builtin" / "photo-codec"
"""The built-in model: tables, decoder network, card and recipe."""


def built_in() -> Tables:
    """The tables of the built-in model. Raises ModelError when they are missing or damaged."""
    return Tables.load(FOLDER / "tables.safetensors")


def digest_of(arrays: dict[str, NDArray]) -> bytes:
    """Eight bytes that identify the tables and the arithmetic that uses them."""
    import numpy as np

    digest = hashlib.sha256(f"wavelet {VERSION}".encode())
    for name in sorted(arrays):
        little = arrays[name].astype(arrays[name].dtype.newbyteorder("<"))
        digest.update(name.encode() + repr(little.shape).encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.digest()[:8]


def _checked(arrays: dict[str, NDArray]) -> tuple[int, int]:
    import numpy as np

    try:
        rates, depths = arrays["weights"].shape[:2]
        wanted = {
            "weights": ((rates, depths, 3, 3, len(PHASES), 1 + MOST_TAPS), np.int32),
            "values": ((rates, depths, 2, 2, BUCKETS, SYMBOLS), np.uint16),
            "low": ((2, SYMBOLS), np.uint16),
            "flags": ((rates, depths, 3, 3, 2), np.uint16),
            "steps": ((rates,), np.int32),
        }
        right = all(
            arrays[name].shape == shape and arrays[name].dtype == kind for name, (shape, kind) in wanted.items()
        )
    except (KeyError, ValueError) as error:
        raise ModelError("codec tables: an array is missing", "install dit again") from error
    if not right or min(rates, depths) < 1 or set(arrays) != set(wanted):
        raise ModelError("codec tables: an array has another shape", "install dit again")
    if any(arrays[name].min() < 1 for name in ("values", "low", "flags", "steps")):
        raise ModelError("codec tables: a frequency is zero", "install dit again")
    heaviest = arrays["weights"].astype(np.int64).sum(axis=-1).max()
    if arrays["weights"].min() < 0 or heaviest > 60 * UNIT:
        raise ModelError("codec tables: weights out of bounds", "install dit again")
    return rates, depths
