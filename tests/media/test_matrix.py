"""Every kind of image file that other libraries write, read and written back: equal, told, or refused.

The right values come from arithmetic on the samples that a file was made of, or from another reader
(tifffile, imagecodecs), never from the code under test.
"""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dit_tools.core.errors import InputError
from dit_tools.jobs.settings import Settings
from dit_tools.media import image
from dit_tools.tasks.edit.task import encoded

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(0)
SIZE = (6, 9)
MAGIC = b"\x89PNG\r\n\x1a\n"


def check(content, wanted, tolerance=1e-5, hidden=True):
    """Whether a file is read as ``wanted`` and survives an edit that changes nothing; False: refused.

    ``hidden`` False leaves out colours that nobody sees, which premultiplied alpha does not hold.
    """
    try:
        picture = image.read(content)
    except InputError as error:
        assert "internal" not in str(error) and "not read" in str(error), error
        return False
    if wanted.shape != picture.pixels.shape:
        assert "left out" in picture.note, (wanted.shape, picture.pixels.shape, picture.note)
        wanted = wanted[:, :, : picture.pixels.shape[2]]
    difference = np.abs(picture.pixels - wanted)
    if not hidden:
        difference *= (wanted[:, :, 3:] > 0) | (np.arange(4) == 3)
    assert difference.max() <= tolerance, (picture.note, difference.max())
    for kind in ("png", "tiff"):
        notes = []
        again = image.read(encoded(picture, picture.pixels, kind, Settings(), notes))
        step = 0.5 / 65535 if picture.bits > 8 else 0
        assert np.abs(again.pixels - picture.pixels).max() <= step + 1e-6
        assert again.icc == picture.icc
        assert (again.bits == picture.bits) or "bits a sample become" in "".join(notes)
    return True


def straight(samples, kind):
    """Colour or grey with alpha ``(H, W, 2 or 4)`` as four straight channels."""
    colour, alpha = samples[:, :, :-1], samples[:, :, -1:]
    if kind == "unspecified":
        return colour
    if kind == "assocalpha":
        colour = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0).clip(0, 1)
    colour = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
    return np.concatenate([colour, alpha], axis=2)


# TIFF

KINDS = [
    *(("minisblack", 1, None), ("miniswhite", 1, None), ("rgb", 3, None)),
    *((p, c, e) for p, c in (("rgb", 4), ("minisblack", 2)) for e in ("unassalpha", "assocalpha", "unspecified")),
]
TYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
PACKING = [(c, p) for c in (None, "zlib", "lzw", "packbits", "zstd", "lzma") for p in (False, True)]


def random(dtype, shape):
    if dtype == "bool":
        return RNG.random(shape) > 0.5
    if dtype.startswith("float"):
        return RNG.random(shape).astype(dtype)
    top = np.iinfo(dtype).max
    samples = RNG.integers(0, top, shape, endpoint=True).astype(dtype)
    samples.flat[:2] = 0, top
    return samples


def unit(samples):
    if samples.dtype.kind in "bf":
        return samples.astype(np.float64)
    return samples / np.float64(np.iinfo(samples.dtype).max)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("photometric, channels, extra", KINDS)
def test_tiff(dtype, photometric, channels, extra):
    seen, rough = 0, {"tolerance": 1e-4}
    if extra == "assocalpha" and dtype == "uint8":  # Pillow rounds after division by few steps of alpha
        rough = {"tolerance": 1.01 / 255, "hidden": False}
    for planar, (compression, predictor), order in itertools.product(("contig", "separate"), PACKING, "<>"):
        shape = SIZE if channels == 1 else (*SIZE, channels) if planar == "contig" else (channels, *SIZE)
        samples, buffer = random(dtype, shape), io.BytesIO()
        options = {"planarconfig": planar} if channels > 1 else {}
        options |= {"extrasamples": [extra]} if extra else {}
        try:
            tifffile.imwrite(
                buffer,
                samples,
                photometric=photometric,
                compression=compression,
                predictor=predictor or None,
                byteorder=order,
                metadata=None,
                **options,
            )
        except (ValueError, NotImplementedError, KeyError, TypeError, RuntimeError):
            continue  # no such file
        wanted = unit(samples)
        wanted = wanted[:, :, None] if channels == 1 else wanted if planar == "contig" else np.moveaxis(wanted, 0, -1)
        if photometric == "miniswhite":
            wanted = 1 - wanted
        if extra:
            wanted = straight(wanted, extra)
        print(planar, compression, predictor, order)  # shown with a failure
        seen += check(buffer.getvalue(), wanted, **rough)
    common = dtype in ("uint8", "uint16") and channels in (1, 3)
    assert seen or not common


def test_premultiplied_tiff_keeps_its_brightness():
    """Half as bright colours were the fault: 16 bits, alpha one half, colour at its most."""
    samples = np.full((4, 4, 4), 32768, np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", extrasamples=["assocalpha"])
    assert np.allclose(image.read(buffer.getvalue()).pixels[0, 0], [1, 1, 1, 0.5], atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cmyk_tiff_is_told(dtype):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, random(dtype, (*SIZE, 4)), photometric="separated")
    assert "CMYK" in image.read(buffer.getvalue()).note


# PNG, written here: chunks as the standard says


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples, bits, colour_type, extra=()):
    """A PNG of integer samples (H, W, C) of ``bits`` bits."""
    height, width, channels = samples.shape
    flat = samples.reshape(height, -1).astype(np.uint32)
    digits = (flat[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return MAGIC + chunk(b"IHDR", head) + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    "colour_type, bits",
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8)]
    + [(6, 16)],
)
def test_png(colour_type, bits, keyed):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    if keyed and colour_type in (4, 6):
        pytest.skip("tRNS is for images without alpha")
    samples = RNG.integers(0, 2**bits, (*SIZE, channels))
    key, extra = samples[2, 3], []
    wanted = samples / (2**bits - 1)
    if colour_type == 3:
        palette, opacity = RNG.integers(0, 256, (2**bits, 3)), RNG.integers(0, 256, 2**bits)
        extra.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
        wanted = palette[samples[:, :, 0]] / 255
        if keyed:
            extra.append(chunk(b"tRNS", opacity.astype(np.uint8).tobytes()))
            wanted = np.concatenate([wanted, opacity[samples] / 255], axis=2)
    elif keyed:
        extra.append(chunk(b"tRNS", key.astype(">u2").tobytes()))
        shown = (samples != key).any(axis=2, keepdims=True)
        wanted = np.concatenate([np.repeat(wanted, 3, axis=2) if channels == 1 else wanted, shown], axis=2)
    elif colour_type == 4:
        wanted = straight(wanted, "unassalpha")
    assert check(png(samples, bits, colour_type, extra), wanted)


# Formats that libraries write


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("top", [255, 1023, 65535])
def test_netpbm(channels, top):
    samples = RNG.integers(0, top, (*SIZE, channels), endpoint=True)
    body = samples.astype("u1" if top < 256 else ">u2").tobytes()
    head = f"P{5 if channels == 1 else 6}\n# a comment\n{SIZE[1]} {SIZE[0]}\n{top}\n".encode()
    assert check(head + body, samples / top)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("codec, options", [("webp", {"lossless": True}), ("jpeg2k", {"level": 0}), ("bmp", {})])
def test_lossless_codecs(codec, options, channels):
    if codec == "bmp" and channels == 4:
        pytest.skip("bmp is written without alpha there")
    samples = RNG.integers(0, 256, (*SIZE, channels), dtype=np.uint8)
    if channels == 1:
        samples = samples[:, :, 0]
    if codec == "webp" and channels == 1:
        pytest.skip("webp has no grey")
    content = bytes(getattr(imagecodecs, f"{codec}_encode")(samples, **options))
    decoded = getattr(imagecodecs, f"{codec}_decode")(content)
    assert check(content, unit(decoded if decoded.ndim == 3 else decoded[:, :, None]))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_read_as_another_decoder_does(channels):
    samples = np.repeat(RNG.integers(0, 256, (8, 8, channels), dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
    content = bytes(imagecodecs.jpeg_encode(samples.squeeze(), level=90))
    decoded = imagecodecs.jpeg_decode(content).reshape(64, 64, channels)
    assert check(content, unit(decoded), tolerance=3 / 255)  # inverse transforms round differently


@pytest.mark.parametrize("depth", [9, 12, 16])
def test_deep_jpeg2000_in_colour_is_told(depth):
    samples = RNG.integers(0, 2**depth, (*SIZE, 3), dtype=np.uint16)
    content = bytes(imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=depth))
    assert f"{depth} bits a sample read as 8" in image.read(content).note


@pytest.mark.parametrize("depth", [10, 12])
def test_deep_avif_is_told(depth):
    samples = RNG.integers(0, 2**depth, (16, 16, 3), dtype=np.uint16)
    content = bytes(imagecodecs.avif_encode(samples, level=100, bitspersample=depth))
    assert f"{depth} bits a sample read as 8" in image.read(content).note


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "I;16"]
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000"])
def test_what_pillow_writes(format, mode):
    """Every mode of Pillow in every format that takes it, against Pillow's own conversion."""
    base = Image.fromarray(RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8), "RGBA")
    if mode == "I;16":
        made = Image.fromarray(RNG.integers(0, 65536, (16, 16), dtype=np.uint16))
    elif mode == "LAB":
        made = Image.new("LAB", (16, 16), (100, 50, 200))
    else:
        try:
            made = (base if mode[-1] in "Aa" else base.convert("RGB")).convert(mode)
        except ValueError:
            made = base.convert("LA").convert(mode) if mode == "La" else base.convert("P").convert(mode)
    buffer = io.BytesIO()
    try:
        made.save(buffer, format)
    except (OSError, KeyError, ValueError):
        pytest.skip("Pillow writes no such file")
    content = buffer.getvalue()
    opened = Image.open(io.BytesIO(content))
    if opened.mode.startswith("I;16") or opened.mode == "I":
        wanted = np.asarray(opened, np.float64)[:, :, None] / 65535
    else:
        opened = opened.convert("LA") if opened.mode == "La" else opened
        kind = "RGBA" if opened.has_transparency_data else "L" if opened.mode in ("1", "L") else "RGB"
        try:
            wanted = np.asarray(opened.convert(kind)).reshape(16, 16, -1) / 255
        except ValueError:  # LAB, which only an engine for profiles converts
            wanted = np.zeros((16, 16, 3))
    check(content, wanted)
