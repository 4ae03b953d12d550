"""Damage compressed files in every way that one thinks of, and count what becomes of them.

``python benchmarks/codec_fuzz.py --files 100000`` prints one JSON object: how many files were
refused with an error that names a remedy, how many still decoded, how many crashed, the slowest and
the peak memory. It exits with 1 if one crashed, took over ``--seconds``, or memory grew beyond
``--megabytes``. Half of the damaged files get correct checksums again, as an attacker would do.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import resource
import struct
import sys
import time
import zlib
from unittest import mock

import numpy as np

from dit_tools.core.errors import DitError
from dit_tools.media import dit_file
from dit_tools.methods.codecs import wavelet
from dit_tools.methods.codecs.wavelet import Wavelet
from dit_tools.tasks.compress.source import encoded

SIZES = ((1, 1), (7, 3), (16, 40), (33, 20))


def seeds(codec: Wavelet) -> list[bytes]:
    """Whole files of several sizes and settings, with and without extras."""
    draw = np.random.default_rng(0)
    made = []
    for height, width in SIZES:
        ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3)[:, :, None]
        image = ((ramp + draw.integers(0, 60, (height, width, 3))) % 256).astype(np.uint8)
        for setting in (100, 500, 900):
            file = codec.pack(image, setting)
            made.append(file.to_bytes())
            alpha = dit_file.pack_alpha(image[:, :, 0].tobytes(), width)
            extras = {"icc": dit_file.deflated(b"profile" * 20), "alpha": alpha}
            made.append(dit_file.DitFile(**{**vars(file), "extras": extras}).to_bytes())
    return made


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One file, damaged in one to four ways."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        kind = draw.randrange(7)
        place = draw.randrange(max(1, len(data)))
        if kind == 0:
            del data[place:]
        elif kind == 1 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            data[place:place] = draw.randbytes(draw.randint(1, 9))
        elif kind == 3:
            del data[place : place + draw.randint(1, 9)]
        elif kind == 4 and len(data) >= 23:
            side = draw.choice((0, 1, 65, 4097, 32768, 1 << 31, (1 << 32) - 1, draw.randrange(1 << 12)))
            struct.pack_into("<I", data, draw.choice((15, 19)), side)
        elif kind == 5 and len(data) >= 27:
            data[draw.choice((4, 5, 6, 23, 24, 25, 26))] = draw.randrange(256)
        elif data:
            start = draw.randrange(len(data))
            data[start : start + 8] = bytes(draw.choice((0, 255)) for _ in data[start : start + 8])
    if draw.random() < 0.5 and len(data) >= 8:
        data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    return bytes(data)


def scrambled(content: bytes, draw: random.Random) -> bytes:
    """One file with a whole header and damaged pixels."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 20)):
        data[draw.randrange(dit_file.HEAD.size + 2, len(data) - 8)] = draw.randrange(256)
    return bytes(data)


def outcome(codec: Wavelet, content: bytes) -> str:
    """What becomes of one file: refused, decoded, or the class of what it crashed with."""
    try:
        file = dit_file.parse(content)
        encoded(codec.unpack(file, None), file, "png")
        return "decoded"
    except DitError as error:
        return "refused" if error.hint else "refused without a remedy"
    except BaseException as error:
        return f"crashed: {type(error).__name__}: {error}"[:120]


def unverified(codec: Wavelet, content: bytes) -> str:
    """The same by an attacker who sets digest and checksums right: hostile pixels are decoded."""
    data = bytearray(content)
    if len(data) < dit_file.HEAD.size + 8:
        return "refused"
    data[:5], data[6:15] = b"DITC\x01", bytes((codec.number,)) + codec.tables.digest
    data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    with mock.patch.object(wavelet, "_verify"):
        try:
            file = dit_file.parse(bytes(data))
            if file.size[0] * file.size[1] > 1 << 18:
                return "large"  # decodes too, but thousands of them take an hour
            codec.unpack(file, None)
            return "decoded"
        except DitError as error:
            return "refused" if error.hint else "refused without a remedy"
        except BaseException as error:
            return f"crashed: {type(error).__name__}: {error}"[:120]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="that no file may exceed")
    parser.add_argument("--megabytes", type=float, default=400.0, help="that memory may grow by")
    options = parser.parse_args()
    codec, draw = Wavelet(), random.Random(options.seed)
    whole = seeds(codec)
    assert all(outcome(codec, content) == "decoded" for content in whole)
    counts: collections.Counter[str] = collections.Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = 0.0
    for number in range(options.files):
        content = damaged(whole[number % len(whole)], draw)
        began = time.perf_counter()
        counts[outcome(codec, content)] += 1
        if number % 4 == 0:
            hostile = scrambled(whole[number % len(whole)], draw) if number % 8 else content
            counts[f"forged {unverified(codec, hostile)}"] += 1
        slowest = max(slowest, time.perf_counter() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    facts = {"files": options.files, **counts, "slowest_s": round(slowest, 3), "grown_mb": round(grown, 1)}
    print(json.dumps(facts))
    bad = any("crashed" in name or "without" in name for name in counts)
    return int(bad or slowest > options.seconds or grown > options.megabytes)


if __name__ == "__main__":
    sys.exit(main())
