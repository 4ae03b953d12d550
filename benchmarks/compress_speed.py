"""How long ``dit compress`` takes, and how long two neural rivals take on the same machine.

``python benchmarks/compress_speed.py [--threads 2] [--oscar] [--megapixels 12]`` prints one JSON object: seconds of
encoding and decoding an image of 768 x 512 by dit, of decoding it by the networks of a mean-scale
hyperprior of the published size (N 192, M 320: Minnen, Balle, Toderici 2018), and with ``--oscar``
of one call of a U-Net of the size of Stable Diffusion 2.1 with its decoder, which is what OSCAR
(arXiv 2505.16091) runs to decode. Rivals have random weights; their entropy decoding is left out,
which favours them. Every figure is the median of ``--repeats`` runs after one to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH = 512, 768


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    call()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def photograph(height: int, width: int) -> np.ndarray:
    """An image to time: one of the folder of photographs, scaled; else smooth noise."""
    import cv2
    from PIL import Image

    paths = sorted((Path(os.environ.get("DIT_DATA", "data")) / "bench/kodak12").glob("*.png"))
    if paths:
        source = np.asarray(Image.open(paths[0]).convert("RGB"))
    else:
        source = cv2.resize(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8), (768, 512))
    return cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC)


def ours(threads: int, repeats: int) -> dict[str, float]:
    """Seconds of the built-in codec at quality 50."""
    from dit_tools.media import dit_file
    from dit_tools.media.wavelet.tables import FOLDER
    from dit_tools.methods.codecs.wavelet import Wavelet
    from dit_tools.models.decoder_network import open_network

    codec, image = Wavelet(), photograph(HEIGHT, WIDTH)
    setting = codec.setting_of(50)
    content = codec.pack(image, setting).to_bytes()
    run = open_network(FOLDER / "decoder.onnx", threads=threads)
    return {
        "bpp": len(content) * 8 / (HEIGHT * WIDTH),
        "encode_s": seconds(lambda: codec.pack(image, setting), repeats),
        "decode_s": seconds(lambda: codec.unpack(dit_file.parse(content), run), repeats),
        "decode_without_network_s": seconds(lambda: codec.unpack(dit_file.parse(content), None), repeats),
    }


def hyperprior(threads: int, repeats: int) -> float:
    """Seconds of the decoder's networks of the mean-scale hyperprior: scales, means and pixels."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    n, m = 192, 320

    class InverseGdn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Conv2d(n, n, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sqrt(self.norm(x * x).abs() + 1e-6)

    def up(a: int, b: int) -> nn.Module:
        return nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1)

    pixels = nn.Sequential(up(m, n), InverseGdn(), up(n, n), InverseGdn(), up(n, n), InverseGdn(), up(n, 3)).eval()
    entropy = nn.Sequential(
        up(n, m), nn.LeakyReLU(), up(m, m * 3 // 2), nn.LeakyReLU(), nn.Conv2d(m * 3 // 2, m * 2, 3, padding=1)
    ).eval()
    y, z = torch.randn(1, m, HEIGHT // 16, WIDTH // 16), torch.randn(1, n, HEIGHT // 64, WIDTH // 64)
    with torch.inference_mode():
        return seconds(lambda: (entropy(z), pixels(y)), repeats)


def oscar(threads: int, repeats: int) -> float:
    """Seconds of one call of Stable Diffusion 2.1's U-Net and its decoder."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.set_num_threads(threads)
    unet = UNet2DConditionModel(
        block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024,
        use_linear_projection=True, sample_size=96,
    ).eval()  # fmt: skip
    decoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    x, text = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8), torch.randn(1, 77, 1024)
    with torch.inference_mode():
        return seconds(lambda: decoder.decode(unet(x, 150, text).sample).sample, repeats)


def large(megapixels: float, threads: int) -> dict[str, float]:
    """Seconds, and megabytes at most, of an image of that many megapixels there and back."""
    from dit_tools.media.wavelet.tables import FOLDER
    from dit_tools.methods.codecs.wavelet import Wavelet
    from dit_tools.models.decoder_network import open_network

    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    codec, image = Wavelet(), photograph(height, round(height * 1.5))
    began = time.perf_counter()
    file = codec.pack(image, codec.setting_of(50))
    middle = time.perf_counter()
    codec.unpack(file, open_network(FOLDER / "decoder.onnx", threads=threads))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"encode_s": middle - began, "decode_s": time.perf_counter() - middle, "peak_mb": peak}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--oscar", action="store_true", help="time the large U-Net too (8 GB, minutes)")
    parser.add_argument("--megapixels", type=float, default=0.0, help="also time one image of that size, alone")
    options = parser.parse_args()
    if options.megapixels:
        report: dict[str, Any] = {"megapixels": options.megapixels, **large(options.megapixels, options.threads)}
    else:
        report = {"threads": options.threads, "dit": ours(options.threads, options.repeats)}
        report["hyperprior_decode_s"] = hyperprior(options.threads, options.repeats)
        report["hyperprior_over_dit"] = report["hyperprior_decode_s"] / report["dit"]["decode_s"]
        if options.oscar:
            report["oscar_decode_s"] = oscar(options.threads, 1)
            report["oscar_over_dit"] = report["oscar_decode_s"] / report["dit"]["decode_s"]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
