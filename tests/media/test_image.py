"""Images in and out of files: exactness, what a photograph carries, hostile input."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dit_tools.core.errors import DitError, InputError, UnsupportedError, UsageError
from dit_tools.media import image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ramp(height=12, width=20, channels=3):
    """A smooth image, which lossy formats keep closely."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [down / height, across / width, (down + across) / (height + width), 1 - down / height]
    return np.stack(planes[:channels], axis=2)


def saved(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format, bits", [("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16)])
def test_lossless_formats_keep_every_step(format, bits, channels):
    top = 2**bits - 1
    samples = np.random.default_rng(0).integers(0, top + 1, (9, 7, channels))
    pixels = (samples / top).astype(np.float32)
    picture = image.read(image.encode(pixels, format, bits=bits, icc=SRGB))
    assert (np.rint(picture.pixels.astype(np.float64) * top) == samples).all()
    assert (picture.bits, picture.icc, picture.format) == (bits, SRGB, format)
    assert picture.pixels.dtype == np.float32 and picture.alpha == (channels == 4)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_lossy_formats_stay_close_and_quality_matters(format):
    pixels = ramp(64, 64)
    small, large = (image.encode(pixels, format, quality=q, icc=SRGB) for q in (20, 95))
    assert np.abs(image.read(large).pixels - pixels).mean() < 0.02
    assert image.read(large).icc == SRGB
    assert len(small) < len(large)


@pytest.mark.parametrize("format", ["jpeg", "avif"])
def test_colour_keeps_its_size_from_quality_90_on(format):
    """Single red pixels between green ones bleed at 4:2:0."""
    pixels = np.zeros((32, 32, 3), np.float32)
    pixels[::2, :, 0] = pixels[1::2, :, 1] = 1
    errors = [np.abs(image.read(image.encode(pixels, format, quality=q)).pixels - pixels).mean() for q in (89, 90, 100)]
    assert errors[0] > 0.2 and max(errors[1:]) < 0.1


def test_webp_at_100_is_lossless_even_under_transparency():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4)) / np.float32(255)
    pixels[:4, :, 3] = 0
    back = image.read(image.encode(pixels.astype(np.float32), "webp", quality=100)).pixels
    assert np.abs(back - pixels).max() < 1e-6


def test_values_are_rounded_and_clipped():
    pixels = np.array([[[-1.0], [0.5 / 255 + 1e-6], [2.0]]], np.float32)
    back = image.read(image.encode(pixels, "png")).pixels
    assert np.rint(back * 255).ravel().tolist() == [0, 1, 255]


def test_jpeg_needs_a_background_for_alpha():
    pixels = ramp(16, 16, 4)
    pixels[:, :, 3] = 0
    with pytest.raises(UsageError, match="background"):
        image.encode(pixels, "jpeg")
    assert image.read(image.encode(pixels, "jpeg", background=image.WHITE)).pixels.min() > 0.99


@pytest.mark.parametrize(
    "format, options, word",
    [
        ("gif", {}, "no image format"),
        ("jpeg", {"bits": 16}, "16 bits: png or tiff"),
        ("png", {"quality": 90}, "takes no quality"),
        ("webp", {"quality": 101}, "1..100"),
    ],
)
def test_combinations_that_do_not_exist(format, options, word):
    with pytest.raises(UsageError, match=word):
        image.encode(ramp(), format, **options)


def test_other_refusals():
    with pytest.raises(UsageError, match="16383"):
        image.encode(np.zeros((1, 16384, 1), np.float32), "webp")
    with pytest.raises(UsageError, match="H, W"):
        image.encode(np.zeros((4, 4), np.float32), "png")
    with pytest.raises(UnsupportedError, match="dtype"):
        image.encode(np.full((4, 4, 3), np.nan, np.float32), "png")


def test_missing_codec_is_unsupported(monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    with pytest.raises(UnsupportedError, match="avif"):
        image.encode(ramp(), "avif")


def test_format_of():
    assert image.format_of("a/b.JPEG") == "jpeg" and image.format_of("x.tif") == "tiff"
    assert image.format_of("-") == image.format_of("name") == "png"
    assert image.format_of("x.png", "jpg") == "jpeg"
    assert image.format_of("x.png", "TIFF") == "tiff"
    with pytest.raises(UsageError, match=r"x\.gif"):
        image.format_of("x.gif")
    with pytest.raises(UsageError, match="--format bmp"):
        image.format_of("x.png", "bmp")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_like_pillow_does(format, turn):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    plain = Image.fromarray(np.rint(ramp(24, 16) * 255).astype(np.uint8))
    content = saved(plain, format, exif=exif.tobytes())
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    got = image.read(content).pixels
    assert got.shape == wanted.shape == ((16, 24, 3) if turn > 4 else (24, 16, 3))
    assert (np.rint(got * 255) == wanted).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_deep_tiff_matches_its_8_bit_twin(turn):
    from dit_tools.media import _containers

    exif = Image.Exif()
    exif[0x0112] = turn
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    shallow = np.rint(ramp(6, 4) * 255).astype(np.uint8)
    deep = shallow.astype(np.uint16) * 257
    twins = [image.read(_containers.write_tiff(s, block, b"", None)) for s in (shallow, deep)]
    assert [twin.bits for twin in twins] == [8, 16]
    assert np.allclose(twins[0].pixels, twins[1].pixels, atol=1e-6)


@pytest.mark.parametrize("format", image.FORMATS)
def test_camera_data_survives_upright_and_without_thumbnail(format):
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Camera"
    exif[0x8769] = {0x9003: "2024:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 1.5)}
    photo = image.read(saved(Image.new("RGB", (6, 4)), "JPEG", exif=exif.tobytes()))
    record = {"version": 1, "prompt": "x"}
    content = image.encode(photo.pixels, format, exif=photo.exif, record=record)
    kept = Image.open(io.BytesIO(content)).getexif()
    assert kept[271] == "Camera" and 0x0112 not in kept
    assert kept.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    assert [float(v) for v in kept.get_ifd(0x8825)[2]] == [48.0, 8.0, 1.5]
    assert image.read(content).pixels.shape == (6, 4, 3)
    assert image.read(content).exif


def test_damaged_exif_does_not_cost_the_picture():
    assert image.read(image.encode(ramp(), "jpeg", exif=b"MM\0*garbage")).pixels.shape[2] == 3


def test_modes_of_old_files():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert (image.read(saved(palette, "PNG")).pixels == [1, 0, 0]).all()
    assert image.read(saved(palette, "PNG", transparency=1)).pixels[0, 0].tolist() == [1, 0, 0, 0]
    assert image.read(saved(Image.new("1", (4, 4), 1), "PNG")).pixels.shape == (4, 4, 1)
    assert image.read(saved(Image.new("LA", (4, 4), (255, 0)), "PNG")).pixels.shape == (4, 4, 4)
    deep = saved(Image.fromarray(np.full((3, 3), 32768, np.uint16)), "PNG")
    assert image.read(deep).pixels[0, 0, 0] == np.float32(32768 / 65535)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_and_said(format):
    content = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format)
    picture = image.read(content)
    assert picture.pixels.shape == (8, 8, 3) and "CMYK" in picture.note and picture.icc is None
    assert picture.pixels[4, 4, 0] > 0.9 > 0.1 > picture.pixels[4, 4, 1]


def test_animation_gives_the_first_frame_with_a_note():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    picture = image.read(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert "first frame" in picture.note and picture.pixels[0, 0].tolist() == [1, 0, 0]
    assert image.read(saved(frames[0], "GIF")).note == ""


def test_float_tiff_is_clipped_with_a_note():
    content = saved(Image.fromarray(np.array([[0.25, 3.0]], np.float32)), "TIFF")
    picture = image.read(content)
    assert picture.pixels.ravel().tolist() == [0.25, 1.0]
    assert picture.bits == 32 and "clipped" in picture.note


def test_a_bomb_is_refused_before_decoding():
    head = struct.pack(">IIBBBBB", 20000, 10001, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    idat = b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(InputError, match="200 megapixels"):
        image.read(b"\x89PNG\r\n\x1a\n" + chunk + idat)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("format", image.FORMATS)
def test_truncated_files_are_refused_by_name(tmp_path, format, bits):
    if bits == 16 and format not in image.DEEP:
        bits = 8
    noise = np.random.default_rng(0).random((64, 64, 3), np.float32)
    content = image.encode(noise, format, bits=bits)
    path = tmp_path / "half.bin"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"half\.bin"):
        image.read(path)


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match=r"a\.png: not an image"):
        image.read(tmp_path / "a.png")
    with pytest.raises(InputError, match="No such file"):
        image.read(tmp_path / "missing.png")
    with pytest.raises(InputError, match="directory"):
        image.read(tmp_path)
    with pytest.raises(InputError, match="not an image"):
        image.read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


BASES = {f: image.encode(ramp(8, 8), f, record={"version": 1}) for f in image.FORMATS}


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(sorted(BASES)),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_raises_nothing_but_our_errors(format, edits):
    content = bytearray(BASES[format])
    for place, value in edits:
        content[place % len(content)] = value
    try:
        assert image.read(bytes(content)).pixels.ndim == 3
    except DitError as error:
        assert "\n" not in str(error)[:40]
