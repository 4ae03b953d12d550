"""Count the integer tables of the wavelet codec from photographs.

``python -m dit_tools.tasks.train.codec.tables --data FOLDER --out tables.safetensors``

Three rounds: quantise every photograph at every rate, fit the weights of the contexts, count the
symbols. The first round rounds to the nearest, the later ones with the tables of the round before.
Each round is saved, so that an interrupted run goes on with the last whole round.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.media.wavelet import contexts, transform
from dit_tools.media.wavelet import quantize as quantization
from dit_tools.media.wavelet.entropy import BUCKETS, SYMBOLS, Counter, code_tile
from dit_tools.media.wavelet.tables import MOST_TAPS, Tables
from dit_tools.tasks.train.codec.photographs import photographs

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = (4.0, 8.0, 14.0, 22.0, 34.0, 52.0, 80.0, 125.0)
"""The quantisation step of each class of rates."""
DEPTHS = 5
"""Levels from the finest with tables of their own; coarser ones share the last."""
SIDE = 512
ROWS = 400  # coefficients sampled from a pass of one photograph, to fit the weights
PRIOR = 40.0  # weight, in symbols, of the more general table in a more special one
TOTAL = 60000


def empty_tables() -> dict[str, NDArray]:
    """Tables that know nothing: every symbol alike, every context zero."""
    import numpy as np

    rates = len(STEPS)
    return {
        "weights": np.zeros((rates, DEPTHS, 3, 3, 4, 1 + MOST_TAPS), np.int32),
        "values": np.ones((rates, DEPTHS, 2, 2, BUCKETS, SYMBOLS), np.uint16),
        "low": np.ones((2, SYMBOLS), np.uint16),
        "flags": np.ones((rates, DEPTHS, 3, 3, 2), np.uint16),
        "steps": np.rint(np.asarray(STEPS) * 256).astype(np.int32),
    }


class Sampler:
    """Collects magnitudes and their neighbours to fit the weights of the contexts."""

    def __init__(self, seed: int):
        import numpy as np

        self.random = np.random.default_rng(seed)
        self.rows: dict[tuple[int, ...], list[tuple[NDArray, NDArray]]] = {}

    def add(self, rate: int, depth: int, level: contexts.Level, bands: list[list[NDArray]]) -> None:
        """Sample every pass of a level whose magnitudes are stored."""
        import numpy as np

        for orientation in range(3):
            for channel in range(3):
                if level.stored[orientation][channel] is None:
                    continue
                for phase, (a, b) in enumerate(contexts.PHASES):
                    target = np.abs(bands[orientation][channel][a::2, b::2])
                    chosen = self.random.permutation(target.size)[:ROWS]
                    columns = [
                        self._values(level, tap, orientation, channel, target.shape)[chosen]
                        for tap in contexts.taps(orientation, channel, phase)
                    ]
                    key = (rate, depth, orientation, channel, phase)
                    kept = (np.stack(columns, 1), target.ravel()[chosen].astype(np.float32))
                    self.rows.setdefault(key, []).append(kept)

    @staticmethod
    def _values(level: contexts.Level, tap: Any, o: int, c: int, shape: tuple) -> NDArray:
        import numpy as np

        source = level.source(tap, o, c)
        if source is None:
            return np.zeros(shape[0] * shape[1], np.float32)
        top, left = 1 + tap.dy, 1 + tap.dx
        return source[top : top + shape[0], left : left + shape[1]].ravel().astype(np.float32)

    def fit(self, weights: NDArray) -> None:
        """Fit the weights of every pass that was sampled, in place."""
        import numpy as np

        for key, parts in self.rows.items():
            features = np.concatenate([part[0] for part in parts])
            target = np.concatenate([part[1] for part in parts])
            found = fit_magnitude(features, target)
            weights[key][: len(found)] = np.rint(found * contexts.UNIT).astype(np.int32)


def fit_magnitude(features: NDArray, target: NDArray, rounds: int = 6) -> NDArray:
    """Constant and weights, none negative, of the Laplacian scale that explains the target best.

    Minimises the sum of ``log m + target / m`` for ``m = constant + features @ weights`` by
    reweighted least squares; a feature whose weight turns negative is dropped.
    """
    import numpy as np

    matrix = np.concatenate([np.ones((len(target), 1), np.float32), features], 1).astype(np.float64)
    weights = np.full(matrix.shape[1], 0.05)
    scale = np.full(len(target), max(target.mean(), 0.004))
    for _ in range(rounds):
        inverse = 1.0 / np.maximum(scale, 0.004)
        weighted = matrix * inverse[:, None]
        gram = weighted.T @ weighted
        gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram) + 1e-6
        right = weighted.T @ (target * inverse)
        active = np.ones(len(weights), bool)
        while True:
            weights = np.zeros(len(active))
            weights[active] = np.linalg.solve(gram[np.ix_(active, active)], right[active])
            if (weights >= 0).all():
                break
            active &= weights > 0
        scale = matrix @ weights
    return np.clip(weights, 0.0, 3.9)


def normalised(counts: dict[str, NDArray], shifts: NDArray) -> dict[str, NDArray]:
    """Frequencies up to 16 bits from counts, smoothed towards more general tables."""
    import numpy as np

    values = counts["values"]
    plain = (shifts == 0)[:, None]
    mirrored = np.concatenate([values[..., SYMBOLS - 2 :: -1], values[..., -1:]], -1)
    values = np.where(plain, values + mirrored, values * 2) / 2
    base = values.sum((0, 1, 2, 3))
    base = base + _spread(base) * PRIOR
    base /= base.sum(-1, keepdims=True)
    middle = values.sum(0) + PRIOR * base
    middle /= middle.sum(-1, keepdims=True)
    return {
        "values": _frequencies(values + PRIOR * middle),
        "low": _frequencies(counts["low"] + 0.5),
        "flags": _frequencies(counts["flags"] + 0.5),
    }


def _spread(base: NDArray) -> NDArray:
    """A wide distribution to start from: a geometric fall on both sides."""
    import numpy as np

    distance = np.abs(np.arange(SYMBOLS) - (SYMBOLS - 2) / 2)
    shape = 0.8**distance
    return np.broadcast_to(shape / shape.sum(), base.shape)


def _frequencies(counts: NDArray) -> NDArray:
    import numpy as np

    share = counts / counts.sum(-1, keepdims=True)
    return np.maximum(1, np.rint(share * TOTAL)).astype(np.uint16)


def run_round(images: list[NDArray], arrays: dict[str, NDArray], number: int) -> dict[str, NDArray]:
    """One round over all photographs and rates: new arrays."""
    import numpy as np

    tables = Tables(arrays)
    random = np.random.default_rng(number)
    made = []
    sampler = Sampler(number)
    for rate, step in enumerate(STEPS):
        for image in images:
            jittered = step * float(np.exp(random.uniform(-0.25, 0.25)))
            made.append((rate, (image.shape[0], image.shape[1]), *quantised(image, jittered, tables, rate, number)))
            _sample(sampler, made[-1], tables.depths)
    new = dict(arrays, weights=arrays["weights"].copy())
    sampler.fit(new["weights"])
    tables = Tables(new)
    counter = Counter(tables)
    counter.keep = True
    for rate, size, low, bands in made:
        code_tile(counter, tables, size, len(bands), rate, bands, low)
    counts = {k: np.zeros(new[k].shape, np.float64) for k in ("values", "low", "flags")}
    for key, found in counter.counts.items():
        if key[0] in ("low", "flag"):
            counts["low" if key[0] == "low" else "flags"][key[1:]] += found
        else:
            counts["values"][key] += found
    return new | normalised(counts, tables.shifts)


def quantised(
    image: NDArray, step: float, tables: Tables, rate: int, number: int
) -> tuple[NDArray, list[list[list[NDArray]]]]:
    """The low pass band and the subbands of a photograph; in the first round plainly rounded."""
    size = (image.shape[0], image.shape[1])
    low, details = transform.forward(transform.to_ycbcr(image), transform.levels_for(*size))
    weight = quantization.LAMBDA if number else 0.0
    bands = quantization.quantize(details, size, step, tables, rate, weight)
    return quantization.quantize_low(low, step), bands


def _sample(sampler: Sampler, made: tuple, depths: int) -> None:
    rate, size, _, bands = made
    _, sizes = contexts.band_sizes(size[0], size[1], len(bands))
    coarser = None
    for index, level_bands in enumerate(bands):
        level = contexts.level_of(sizes[index], coarser)
        for orientation in range(3):
            for channel in range(3):
                band = level_bands[orientation][channel]
                if band.any():
                    for phase, (a, b) in enumerate(contexts.PHASES):
                        level.store(orientation, channel, phase, band[a::2, b::2])
        sampler.add(rate, min(len(bands) - 1 - index, depths - 1), level, level_bands)
        coarser = level


def main() -> None:
    """Entry point of ``python -m``."""
    from safetensors.numpy import load_file, save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DIT_DATA", "data")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=6, help="take every n-th of the photographs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shares = {"photos/cc0_budgie.tar": 2, "photos/cc0_photos.tar": options.every}
    images = [
        image[:SIDE, :SIDE]
        for archive, every in shares.items()
        for _, image in photographs(options.data, (archive,), every, shortest=416)
    ]
    print(f"{len(images)} photographs")
    arrays = empty_tables()
    for number in range(options.rounds):
        path = options.out.with_suffix(f".round{number}.safetensors")
        if path.exists():
            arrays = load_file(path)
            continue
        arrays = run_round(images, arrays, number)
        save_file(arrays, path)
        print(f"round {number} done")
    save_file(arrays, options.out)
    print(f"{options.out}: digest {Tables(arrays).digest.hex()}")


if __name__ == "__main__":
    main()
