"""Rate and distortion of ``dit compress`` against JPEG, WebP and AVIF on a folder of images.

``python benchmarks/compress.py --images FOLDER [--out report.json] [--sheet sheet.png]``

Every point is the mean over the images of the bits a pixel of whole files and of PSNR, MS-SSIM and,
with ``--features``, the distance of SqueezeNet's features. Points of finished images are kept in
``--cache``, so that an interrupted run goes on. The table ends with BD-rates: percent of bytes
against each rival at equal PSNR, at equal -10 log10(1 - MS-SSIM), and at equal feature distance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.features import FeatureDistance
from dit_tools.core.errors import UsageError
from dit_tools.media import dit_file, image
from dit_tools.media.bd_rate import bd_rate
from dit_tools.media.sheet import grid_sheet
from dit_tools.media.wavelet.tables import FOLDER
from dit_tools.methods.codecs.wavelet import Wavelet
from dit_tools.models.decoder_network import open_network
from dit_tools.tasks.compress import compare, measure, rate

QUALITIES = {
    "jpeg": (6, 10, 16, 26, 42, 62, 80, 92),
    "webp": (0, 4, 12, 25, 45, 65, 80, 92),
    "avif": (8, 16, 26, 38, 50, 62, 76),
    "dit": (2, 14, 26, 38, 50, 62, 76),
    "plain": (2, 14, 26, 38, 50, 62, 76),
}
OURS = ("dit", "plain")
"""The codec, and the same files decoded without its network."""
SCORES = ("psnr", "ms_ssim", "features")
LOW_RATES = (0.08, 0.1, 0.15, 0.2)


class Points:
    """Measured points by codec, quality and image, kept in a JSON file."""

    def __init__(self, cache: Path | None, features: FeatureDistance | None, network: Path):
        self.cache, self.features, self.codec = cache, features, Wavelet()
        self.network = open_network(network)
        self.seen: dict[Path, list[np.ndarray]] = {}
        self.known = json.loads(cache.read_text()) if cache and cache.exists() else {}
        self.digest = hashlib.sha256(network.read_bytes() + self.codec.tables.digest).hexdigest()[:8]

    def point(self, codec: str, quality: int, path: Path) -> dict[str, float]:
        """Bits a pixel and scores of one image at one quality."""
        key = f"{codec} {self.digest if codec in OURS else ''} {quality} {path.name} {self.features is not None}"
        if key not in self.known:
            source = np.asarray(Image.open(path).convert("RGB"))
            content, decoded, seconds = self.coded(codec, quality, source)
            made: dict[str, Any] = {"bpp": len(content) * 8 / (source.shape[0] * source.shape[1]), **seconds}
            made["psnr"], made["ms_ssim"] = measure.psnr(source, decoded), measure.ms_ssim(source, decoded)
            if self.features is not None:
                if path not in self.seen:
                    self.seen = {path: self.features.features(source)}
                made["features"] = self.features.between(self.seen[path], self.features.features(decoded))
            self.known[key] = made
            if self.cache:
                self.cache.write_text(json.dumps(self.known))
        return self.known[key]

    def coded(self, codec: str, quality: int, source: np.ndarray) -> tuple[bytes, np.ndarray, dict[str, float]]:
        """File, decoded image and seconds of one image."""
        began = time.perf_counter()
        if codec not in OURS:
            content = compare.encode(source, codec, quality)
            middle = time.perf_counter()
            decoded = compare.decode(content)
        else:
            content = self.codec.pack(source, self.codec.setting_of(quality)).to_bytes()
            middle = time.perf_counter()
            network = self.network if codec == "dit" else None
            decoded = self.codec.unpack(dit_file.parse(content), network)
        return content, decoded, {"encode_s": middle - began, "decode_s": time.perf_counter() - middle}

    def curve(self, codec: str, paths: list[Path]) -> list[dict[str, float]]:
        """Means over the images for every quality."""
        curve, found = [], {q: [] for q in QUALITIES[codec]}
        for path in paths:
            for quality in QUALITIES[codec]:
                found[quality].append(self.point(codec, quality, path))
        for points in found.values():
            curve.append({name: float(np.mean([p[name] for p in points])) for name in points[0]})
        return curve


def quality_of(score: str, value: float) -> float:
    """A score as a quality of which more is better, even enough to interpolate."""
    if score == "ms_ssim":
        return -10 * float(np.log10(1 - value))
    return -10 * float(np.log10(value)) if score == "features" else value


def differences(curves: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float | str]]:
    """BD-rates of dit against every rival, in percent."""
    found: dict[str, dict[str, float | str]] = {}
    for rival in curves:
        for score in SCORES:
            if rival == "dit" or score not in curves["dit"][0]:
                continue
            pairs = [[(p["bpp"], quality_of(score, p[score])) for p in curves[name]] for name in (rival, "dit")]
            try:
                found.setdefault(rival, {})[score] = round(bd_rate(*pairs), 2)
            except UsageError as error:
                found.setdefault(rival, {})[score] = str(error)
    return found


def published(curve: list[dict[str, float]], folder: Path) -> dict[str, dict[str, float]]:
    """BD-rates against published curves; those are means over all 24 Kodak images, whichever ours are."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("*.json")):
        results = json.loads(path.read_text())["results"]
        for score, name in (("psnr", "psnr-rgb"), ("ms_ssim", "ms-ssim-rgb")):
            if name in results:
                theirs = [(b, quality_of(score, q)) for b, q in zip(results["bpp"], results[name], strict=True)]
                ours = [(p["bpp"], quality_of(score, p[score])) for p in curve]
                found.setdefault(path.stem, {})[score] = round(bd_rate(theirs, ours), 1)
    return found


def bytes_at_low_rates(curves: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float | None]]:
    """Bits a pixel that every rival needs for our feature distance at each low rate, over ours, in percent."""
    ours = sorted((p["bpp"], quality_of("features", p["features"])) for p in curves["dit"])
    found: dict[str, dict[str, float | None]] = {}
    for bpp in LOW_RATES:
        wanted = float(np.interp(np.log(bpp), np.log([b for b, _ in ours]), [q for _, q in ours]))
        row: dict[str, float | None] = {}
        for rival in ("jpeg", "webp", "avif"):
            points = sorted((quality_of("features", p["features"]), p["bpp"]) for p in curves[rival])
            inside = points[0][0] <= wanted <= points[-1][0]
            needed = np.exp(np.interp(wanted, [q for q, _ in points], np.log([b for _, b in points])))
            row[rival] = round((bpp / float(needed) - 1) * 100, 1) if inside else None
        found[str(bpp)] = row
    return found


def table(curves: dict[str, list[dict[str, float]]]) -> str:
    """The curves as lines of text."""
    lines = [f"{'codec':6}{'bpp':>8}{'PSNR':>8}{'MS-SSIM':>9}{'features':>10}{'enc s':>7}{'dec s':>7}"]
    for name, curve in curves.items():
        lines += [
            f"{name:6}{p['bpp']:8.4f}{p['psnr']:8.2f}{p['ms_ssim']:9.4f}{p.get('features', float('nan')):10.4f}"
            f"{p['encode_s']:7.2f}{p['decode_s']:7.2f}"
            for p in curve
        ]
    return "\n".join(lines)


def make_sheet(points: Points, paths: list[Path], bpp: float, side: int = 256) -> bytes:
    """The middle of every image by every codec at the same bytes."""
    columns, cells = ["source", "dit", "jpeg", "webp", "avif"], []
    for path in paths:
        source = np.asarray(Image.open(path).convert("RGB"))
        allowed = int(bpp * source.shape[0] * source.shape[1] / 8)

        def packed(setting: int, source: np.ndarray = source) -> tuple[int, dit_file.DitFile]:
            file = points.codec.pack(source, setting)
            return len(file.to_bytes()), file

        _, file = rate.fit_bytes(packed, allowed, points.codec.worst, 800)
        row = [source, points.codec.unpack(file, points.network)]
        row += [compare.decode(compare.rival(source, name, allowed)[0]) for name in columns[2:]]
        top, left = (source.shape[0] - side) // 2, (source.shape[1] - side) // 2
        cells.append([x[top : top + side, left : left + side] / np.float32(255) for x in row])
    return image.encode(grid_sheet([path.stem for path in paths], columns, cells), "png")


def main() -> None:
    """Entry point."""
    data = Path(os.environ.get("DIT_DATA", "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, default=data / "bench" / "kodak12")
    parser.add_argument("--features", type=Path, default=data / "nets/squeezenet/squeezenet_v1.0_dc.onnx")
    parser.add_argument("--network", type=Path, default=FOLDER / "decoder.onnx")
    parser.add_argument("--every", type=int, default=1, help="take one of so many images")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path, help="also write the middle of every image at equal bytes")
    parser.add_argument("--sheet-bpp", type=float, default=0.1)
    options = parser.parse_args()
    paths = sorted(options.images.glob("*.png"))[:: options.every]
    features = FeatureDistance(options.features) if options.features.is_file() else None
    points = Points(options.cache, features, options.network)
    curves = {name: points.curve(name, paths) for name in QUALITIES}
    report: dict[str, Any] = {"images": len(paths), "curves": curves, "bd_rate": differences(curves)}
    print(table(curves))
    for rival, found in report["bd_rate"].items():
        print(f"BD-rate against {rival}: " + ", ".join(f"{score} {value}" for score, value in found.items()))
    anchors = data / "bench" / "kodak_rd_anchors"
    if anchors.is_dir():
        report["published"] = published(curves["dit"], anchors)
        print(f"BD-rate against published means over 24 images: {json.dumps(report['published'])}")
    if features is not None:
        report["low_rates"] = bytes_at_low_rates(curves)
        print(f"bytes at equal feature distance, percent: {json.dumps(report['low_rates'])}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1))
    if options.sheet:
        options.sheet.write_bytes(make_sheet(points, paths, options.sheet_bpp))


if __name__ == "__main__":
    main()
