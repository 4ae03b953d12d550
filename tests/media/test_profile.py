"""What PNG and AVIF say about colours next to ICC profiles, carried as profiles; other readers agree."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from dit_tools.core.errors import InputError
from dit_tools.media import image, profile
from tests.media.test_matrix import chunk, png

RNG = np.random.default_rng(0)
CHRM_P3 = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


def gama(value):
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def with_chunks(*chunks, grey=False):
    samples = RNG.integers(0, 256, (4, 5, 1 if grey else 3))
    return png(samples, 8, 0 if grey else 2, chunks)


def linear(icc, values):
    """What a colour engine (LittleCMS) makes of equal RGB values: linear light by their luminance."""
    xyz = ImageCms.createProfile("XYZ")
    kind = icc[16:20].decode().strip()
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    pixels = np.asarray(values, np.uint8).reshape(1, -1)
    made = Image.fromarray(pixels if kind == "GRAY" else np.stack([pixels] * 3, axis=2))
    to_lab = ImageCms.buildTransform(source, ImageCms.createProfile("LAB"), made.mode, "LAB", 1)
    lightness = np.asarray(ImageCms.applyTransform(made, to_lab))[0, :, 0] / 255 * 100
    del xyz
    return np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("gamma", [0.3, 0.45455, 1.0])
def test_gamma_means_to_a_colour_engine_what_the_chunk_says(gamma, grey):
    picture = image.read(with_chunks(gama(gamma), grey=grey))
    assert "gAMA became a colour profile" in picture.note
    values = np.arange(40, 256, 15)
    assert np.allclose(linear(picture.icc, values), (values / 255) ** (1 / gamma), atol=0.02)


def test_primaries_are_those_of_the_file():
    """P3's red in sRGB: beyond red, and by LittleCMS's own sRGB profile no green or blue in it."""
    picture = image.read(with_chunks(gama(1 / 2.2), CHRM_P3))
    p3, srgb = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc)), ImageCms.createProfile("sRGB")
    lab = [
        np.asarray(
            ImageCms.applyTransform(
                Image.new("RGB", (1, 1), (255, 0, 0)),
                ImageCms.buildTransform(space, ImageCms.createProfile("LAB"), "RGB", "LAB", 1),
            )
        )[0, 0].view(np.int8)
        for space in (p3, srgb)
    ]
    chroma = [np.hypot(*map(float, colour[1:])) for colour in lab]
    assert chroma[0] > chroma[1] + 5


def test_columns_are_srgbs_published_ones():
    """ICC's sRGB profile: XYZ of red, green and blue at D50."""
    known = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
    assert np.allclose(profile._columns(profile.ColourSpace()), known, atol=3e-4)


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp", "avif"])
def test_the_profile_goes_into_every_format(format):
    picture = image.read(with_chunks(gama(1.0)))
    assert image.read(image.encode(picture.pixels, format, icc=picture.icc)).icc == picture.icc


def test_which_chunk_wins():
    """cICP over iCCP over sRGB over gAMA and cHRM."""
    srgb = chunk(b"sRGB", b"\0")
    assert image.read(with_chunks(srgb, gama(1.0))).icc is None
    assert image.read(with_chunks(chunk(b"cICP", bytes([1, 13, 0, 1])), gama(1.0))).icc is None
    p3 = image.read(with_chunks(chunk(b"cICP", bytes([12, 13, 0, 1])), gama(1.0)))
    assert "cICP became a colour profile" in p3.note
    assert p3.icc == profile.from_code_points(12, 13).icc(grey=False)
    unspecified = image.read(with_chunks(chunk(b"cICP", bytes([2, 2, 0, 1])), gama(1.0)))
    assert "gAMA became" in unspecified.note


@pytest.mark.parametrize("code, word", [((9, 16, 0, 1), "PQ"), ((9, 18, 0, 1), "HLG"), ((1, 13, 1, 1), "YCbCr")])
@pytest.mark.parametrize("extra", [(), (gama(1.0),)])
def test_what_a_profile_cannot_say_is_refused(code, word, extra):
    with pytest.raises(InputError, match=word):
        image.read(with_chunks(chunk(b"cICP", bytes(code)), *extra))


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0" * 7])
def test_damaged_gamma_is_told(body):
    picture = image.read(with_chunks(chunk(b"gAMA", body)))
    assert picture.icc is None and "left out" in picture.note


def test_grey_profile_of_a_picture_that_becomes_colour():
    grey = image.read(with_chunks(gama(0.7), grey=True)).icc
    colour = profile.as_colour(grey)
    assert (grey[16:20], colour[16:20]) == (b"GRAY", b"RGB ")
    values = np.arange(40, 256, 15)
    assert np.allclose(linear(grey, values), linear(colour, values), atol=0.01)
    assert profile.as_colour(colour) == colour
    assert profile.as_colour(b"\0" * 16 + b"GRAY" + b"\0" * 200) is None


def test_avif_in_p3_keeps_its_colours():
    """A file whose colour box says P3 (libavif writes 1/13 by itself: the box is changed here)."""
    content = image.encode(np.full((16, 16, 3), 0.5, np.float32), "avif")
    at = content.index(b"nclx")
    p3 = content[: at + 4] + struct.pack(">HH", 12, 13) + content[at + 8 :]
    assert image.read(p3).icc == profile.from_code_points(12, 13).icc(grey=False)
    with pytest.raises(InputError, match="PQ"):
        image.read(content[: at + 4] + struct.pack(">HH", 9, 16) + content[at + 8 :])
