"""Large texts, large images and cut-off files: what is whole is read, what is not is told before the cost."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dit_tools.core import memory
from dit_tools.core.errors import ExitCode, InputError, MemoryLimitError
from dit_tools.media import image, metadata
from tests.media.test_matrix import chunk, png

SAMPLES = np.random.default_rng(0).integers(0, 256, (4, 5, 3))


@pytest.mark.parametrize("count", [1, 80])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iCCP"])
def test_png_with_megabytes_of_text_is_whole(kind, count):
    """Pillow refuses 1 MiB of one chunk and 64 MiB of all."""
    words = np.random.default_rng(1).integers(65, 91, 1_000_000 if count > 1 else 1_500_000, np.uint8).tobytes()
    packed = zlib.compress(words, 1)
    body = {
        "tEXt": b"note\0" + words,
        "zTXt": b"note\0\0" + packed,
        "iTXt": b"note\0\1\0\0\0" + packed,
        "iCCP": b"ICC\0\0" + packed,
    }[kind]
    content = png(SAMPLES, 8, 2, [chunk(kind.encode(), body)] * (1 if kind == "iCCP" else count))
    picture = image.read(content)
    assert np.abs(picture.pixels - SAMPLES / 255).max() < 1e-6
    assert (picture.icc == words) if kind == "iCCP" else (picture.icc is None)
    assert image.probe(content).width == 5
    assert metadata.read_record(content) is None


def test_nine_megabytes_of_plain_text_hide_nothing():
    note = chunk(b"tEXt", b"note\0" + b"x" * (9 << 20))
    content = image.encode(np.zeros((4, 4, 3), np.float32), "png", record={"version": 1, "prompt": "a cat"})
    content = content[:33] + note + content[33:]
    assert metadata.read_record(content)["prompt"] == "a cat"


def test_other_texts_stay_for_orientation():
    """Pillow takes the orientation from XMP, too; dropping texts must not drop it."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, "PNG", pnginfo=info)
    assert image.read(buffer.getvalue()).pixels.shape == (6, 4, 3)
    assert (image.probe(buffer.getvalue()).width, image.probe(buffer.getvalue()).height) == (4, 6)


def flat_png(side):
    """A grey PNG of one value, some hundred kB however large."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side)) + packer.flush()
    body = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_memory_is_estimated_before_decoding(monkeypatch):
    content = flat_png(2000)
    monkeypatch.setattr(memory, "available", lambda: 20_000_000)
    with pytest.raises(MemoryLimitError, match=r"2000x2000 pixels needs 0\.0 GB of memory") as caught:
        image.read(content)
    assert caught.value.code == ExitCode.MEMORY
    assert image.probe(content).width == 2000
    monkeypatch.setattr(memory, "available", lambda: 30_000_000)
    assert image.read(content).pixels.shape == (2000, 2000, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is Linux's")
def test_info_needs_no_pixels(tmp_path):
    """14,000 x 14,000 pixels in a process that could not hold them."""
    (tmp_path / "a.png").write_bytes(flat_png(14_000))
    code = (
        "import resource, sys; import PIL.Image, numpy, dit_tools.tasks.info as info\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 400_000_000,) * 2)\n"
        "print(info.inspect_file(sys.argv[1])['width'])\n"
        "from dit_tools.media import image\n"
        "try: image.read(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, "a.png"], cwd=tmp_path, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == "14000" and second.startswith("MemoryLimitError a.png: an image of 14000x14000 pixels needs 1.2 GB")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "PPM"])
def test_probe_says_what_read_says_and_finds_cut_files(format):
    buffer = io.BytesIO()
    made = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    made.save(buffer, format)
    content = buffer.getvalue()
    picture, header = image.read(content), image.probe(content)
    assert picture.pixels.shape == (header.height, header.width, header.channels)
    for name in ("bits", "format", "alpha", "icc", "note"):
        assert getattr(picture, name) == getattr(header, name)
    with pytest.raises(InputError):
        image.probe(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_probe_knows_channels(mode):
    made = Image.new("L", (4, 6)).convert(mode) if mode != "I;16" else Image.fromarray(np.zeros((6, 4), np.uint16))
    buffer = io.BytesIO()
    made.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    picture, header = image.read(buffer.getvalue()), image.probe(buffer.getvalue())
    assert picture.pixels.shape == (header.height, header.width, header.channels)
    assert (picture.alpha, picture.note) == (header.alpha, header.note)
