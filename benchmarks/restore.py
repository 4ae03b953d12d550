"""Figures of ``dit superres`` and ``dit restore``, next to bicubic enlargement and non-local means.

    python benchmarks/restore.py --data FOLDER                 quality, every table
    OMP_NUM_THREADS=1 python benchmarks/restore.py --data FOLDER --only speed --rival x4.onnx
                                                               CPU seconds a megapixel

FOLDER holds ``bench/Set5`` and ``bench/bsd10`` with ``HR`` and ``LR_x2`` or ``LR_x4`` inside.
Super-resolution: PSNR of brightness (BT.601, 16 to 235) after rounding to 8 bits, a border of as
many pixels as the scale left out, the image cut to a multiple of the scale; x3 is enlarged from an
image that Pillow reduced. Restoration: PSNR of all colours of whole images; noise is stated both
unclipped, as publications have it, and clipped to 8 bits, as a file holds it. Means over images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dit_tools.media.resample import cubic
from dit_tools.media.samples import to_samples
from dit_tools.methods import degradation
from dit_tools.models import onnx_session, photo
from dit_tools.tasks.photo.network import enlarge, repair

LUMA = np.array([65.481, 128.553, 24.966]) / 255
SPOILT = (
    ("noise 25, unclipped", "noise:sigma=25"),
    ("noise 25", "noise:sigma=25+clip"),
    ("noise 50, unclipped", "noise:sigma=50"),
    ("noise 50", "noise:sigma=50+clip"),
    ("JPEG 10", "jpeg:quality=10"),
    ("JPEG 30", "jpeg:quality=30"),
    ("JPEG 60", "jpeg:quality=60"),
    ("JPEG 80", "jpeg:quality=80"),
    ("JPEG 95", "jpeg:quality=95"),
    ("blur 1.5", "blur:sigma=1.5+clip"),
    ("nothing", "none"),
)
STRENGTHS = (3, 5, 7, 10, 15, 20, 30)  # of non-local means; the best one of each row is shown


def images(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(folder.glob("*.png")):
        yield path.name, np.asarray(Image.open(path).convert("RGB"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return 10 * np.log10(255**2 / error) if error else 100.0


def psnr_y(a: np.ndarray, b: np.ndarray, border: int) -> float:
    inside = (slice(border, -border),) * 2
    return psnr(a[inside] @ LUMA, b[inside] @ LUMA)


def pairs(data: Path, name: str, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Small and large images of a test set."""
    small = data / "bench" / name / f"LR_x{scale}"
    for file, large in images(data / "bench" / name / "HR"):
        height, width = (side - side % scale for side in large.shape[:2])
        large = large[:height, :width]
        if small.is_dir():
            low = np.asarray(Image.open(small / file).convert("RGB"))
        else:
            size = (width // scale, height // scale)
            low = np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BICUBIC))
        yield low, large[: low.shape[0] * scale, : low.shape[1] * scale]


def bicubic(low: np.ndarray, scale: int) -> np.ndarray:
    size = (low.shape[1] * scale, low.shape[0] * scale)
    return np.asarray(Image.fromarray(low).resize(size, Image.Resampling.BICUBIC))


def rival(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Another x4 network: a graph from colours (1, 3, h, w) in 0 to 1 to (1, 3, 4 h, 4 w)."""
    session = onnx_session.open_session(path)
    name = session.get_inputs()[0].name

    def enlarged(low: np.ndarray) -> np.ndarray:
        batch = (low.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]
        return to_samples(session.run(None, {name: batch})[0][0].transpose(1, 2, 0), 8)

    return enlarged


def rivals_x4(data: Path, path: Path) -> None:
    for name in ("Set5", "bsd10"):
        way = rival(path)
        rows = [psnr_y(way(low), large, 4) for low, large in pairs(data, name, 4)]
        print(f"| {path.stem}, {name} x4 | {np.mean(rows):.2f} dB |", flush=True)


def superres(data: Path, reference: str, dtypes: list[str]) -> None:
    models = {dtype: photo.load(reference, "superres", "cpu", dtype) for dtype in dtypes}
    print("| images | bicubic | " + " | ".join(dtypes) + " |\n|---|" + "---|" * (1 + len(dtypes)))
    for name, scale in (("Set5", 2), ("Set5", 3), ("Set5", 4), ("bsd10", 2), ("bsd10", 4)):
        ways: list[Callable[[np.ndarray], np.ndarray]] = [lambda low, s=scale: bicubic(low, s)]
        ways += [lambda low, s=scale, m=m: enlarge(m, low, s, 1.0, 0, 8) for m in models.values()]
        rows = [[psnr_y(way(low), large, scale) for way in ways] for low, large in pairs(data, name, scale)]
        print(f"| {name} x{scale} | " + " | ".join(f"{v:.2f}" for v in np.mean(rows, 0)) + " |", flush=True)


def restored(model: photo.PhotoModel, spoilt: np.ndarray) -> np.ndarray:
    """A float image (H, W, 3), perhaps outside 0 to 1, through the network, as 8-bit samples."""
    edge = [(0, -side % model.multiple) for side in spoilt.shape[:2]]
    seen = np.pad(spoilt, (*edge, (0, 0)), "edge")
    made = (seen + model.residual(seen))[: spoilt.shape[0], : spoilt.shape[1]]
    return to_samples(made, 8)


def nlm(spoilt: np.ndarray) -> list[np.ndarray]:
    samples = to_samples(spoilt, 8)
    return [cv2.fastNlMeansDenoisingColored(samples, None, h, h, 7, 21) for h in STRENGTHS]


def restore(data: Path, reference: str, dtypes: list[str], rivals: bool, rows_of: str) -> None:
    models = {dtype: photo.load(reference, "restore", "cpu", dtype) for dtype in dtypes}
    heads = ["input", *(["non-local means"] if rivals else []), *dtypes]
    print("| bsd10 | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for name, text in ((name, text) for name, text in SPOILT if rows_of in name):
        chain, rows, means = degradation.parse(text), [], []
        for index, (_, clean) in enumerate(images(data / "bench" / "bsd10" / "HR")):
            spoilt = chain.apply(clean.astype(np.float32) / np.float32(255), np.random.default_rng(index))
            rows.append([psnr(spoilt * 255, clean), *(psnr(restored(m, spoilt), clean) for m in models.values())])
            if rivals:
                means.append([psnr(made, clean) for made in nlm(spoilt)])
        found = list(np.mean(rows, 0))
        if rivals:
            found.insert(1, np.mean(means, 0).max())
        print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in found) + " |", flush=True)


def speed(up: str, fix: str, dtypes: list[str], other: Path | None) -> None:
    """CPU seconds for each million pixels of the result, the fastest of three runs."""
    rng = np.random.default_rng(0)
    print("| work | seconds a megapixel |\n|---|---|")
    small = rng.integers(256, size=(256, 256, 3), dtype=np.uint8)
    print(f"| cubic enlargement | {_seconds(lambda: cubic(small.astype(np.float32), (1024, 1024))) / 1.0486:.3f} |")
    if other:
        way = rival(other)
        print(f"| {other.stem}, x4 | {_seconds(lambda: way(small)) / 1.0486:.3f} |", flush=True)
    for dtype in dtypes:
        model = photo.load(up, "superres", "cpu", dtype)
        for scale in model.scales:
            taken = _seconds(lambda m=model, s=scale: enlarge(m, small, s, 1.0, m.tile, 8))
            print(f"| superres x{scale}, {dtype} | {taken * 1e6 / (256 * scale) ** 2:.3f} |", flush=True)
        if fix not in photo.names() and not Path(fix).is_dir():
            continue
        model = photo.load(fix, "restore", "cpu", dtype)
        for side in (512, 1024, 2048):
            large = rng.integers(256, size=(side, side, 3), dtype=np.uint8)
            taken = _seconds(lambda m=model, x=large: repair(m, x, 1.0, m.tile), 1)
            print(f"| restore {side}x{side}, {dtype} | {taken * 1e6 / side**2:.3f} |", flush=True)


def _seconds(work: Callable[[], object], times: int = 3) -> float:
    """The fastest of a few runs, CPU seconds, after one that warms up."""
    work()
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--superres", default="superres", help="built-in name or folder")
    parser.add_argument("--restore", default="restore", help="built-in name or folder")
    parser.add_argument("--dtype", nargs="+", default=["float32"], help="float32 int8")
    parser.add_argument("--rival", type=Path, help="a graph of another x4 network, for speed and PSNR")
    parser.add_argument("--rivals", action="store_true", help="non-local means as well (minutes)")
    parser.add_argument("--rows", default="", help="of restoration, those whose name holds this text")
    parser.add_argument("--only", choices=("superres", "restore", "speed"))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.only in (None, "superres"):
        superres(args.data, args.superres, args.dtype)
        if args.rival:
            rivals_x4(args.data, args.rival)
    if args.only in (None, "restore"):
        restore(args.data, args.restore, args.dtype, args.rivals, args.rows)
    if args.only == "speed":
        speed(args.superres, args.restore, args.dtype, args.rival)


if __name__ == "__main__":
    main()
