"""The record, the A1111 text and the provenance, through every format and from hostile files."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dit_tools.core.errors import InputError, UsageError
from dit_tools.media import _containers, image, metadata

BLACK = np.zeros((8, 8, 3), np.float32)
NASTY = 'a "cat", <b>&amp; it\'s\n\n猫 😀 é\tÂ©\\ {x|y} ]]> -->'
FULL = {
    "version": 1,
    "prompt": NASTY,
    "negative_prompt": "blurry",
    "steps": 20,
    "solver": "dpmpp2m",
    "cfg_scale": 3.5,
    "seed": 7,
    "width": 64,
    "height": 32,
    "model": "/home/me/pixart.safetensors",
}


@pytest.mark.parametrize("format", image.FORMATS)
def test_round_trip_of_a_nasty_prompt(tmp_path, format):
    path = tmp_path / "picture"
    path.write_bytes(image.encode(BLACK, format, record=FULL))
    assert metadata.read_record(path) == FULL
    assert metadata.read_parameters(path) == metadata.parameters_text(FULL)


@pytest.mark.parametrize("letter", ["a", "猫", "😀", "Ā"])
@pytest.mark.parametrize("format", image.FORMATS)
def test_round_trip_of_100_kb(format, letter):
    record = {"version": 1, "prompt": letter * (100_000 // len(letter.encode()))}
    content = image.encode(BLACK, format, record=record)
    assert metadata.read_record(content) == record
    assert metadata.read_parameters(content) == record["prompt"]
    assert image.read(content).pixels.shape == (8, 8, 3)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(st.characters(), max_size=60),
    negative=st.text(max_size=20),
    format=st.sampled_from(sorted(image.FORMATS)),
    extra=st.dictionaries(st.text(max_size=8), st.integers() | st.booleans() | st.none()),
)
def test_any_text_round_trips(prompt, negative, format, extra):
    record = {**extra, "version": 1, "prompt": prompt, "negative_prompt": negative, "steps": 4}
    content = image.encode(BLACK, format, record=record)
    assert metadata.read_record(content) == record
    assert metadata.read_parameters(content) == metadata.parameters_text(record)


@pytest.mark.parametrize("format", image.FORMATS)
def test_provenance_is_written_with_a_record_only(format):
    made = image.encode(BLACK, format, record=FULL)
    edited = image.encode(BLACK, format, record=FULL, origin="composite")
    assert b"digitalsourcetype/trainedAlgorithmicMedia<" in made
    assert b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia<" in edited
    plain = image.encode(BLACK, format)
    assert b"digitalsourcetype" not in plain
    assert metadata.read_record(plain) is None and metadata.read_parameters(plain) is None
    with pytest.raises(UsageError, match="enhanced"):
        image.encode(BLACK, format, record=FULL, origin="magic")


def test_pillow_reads_what_we_wrote():
    """An independent reader: A1111 itself uses Pillow for PNG and piexif's layout for the rest."""
    text = metadata.parameters_text(FULL)
    png = Image.open(io.BytesIO(image.encode(BLACK, "png", record=FULL)))
    assert png.text["parameters"] == text and json.loads(png.text["dit"]) == FULL
    for format in ("jpeg", "webp", "tiff", "avif"):
        picture = Image.open(io.BytesIO(image.encode(BLACK, format, record=FULL)))
        comment = picture.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + text.encode("utf-16-be")
        assert b"dit:record" in picture.info.get("xmp", b"") or format == "tiff"
    deep = image.encode(BLACK, "tiff", bits=16, record=FULL)
    assert b"dit:record" in Image.open(io.BytesIO(deep)).tag_v2[700]


def test_parameters_text_is_what_a1111_writes():
    record = {**FULL, "prompt": "a cat", "schedule": "shift:mu=1", "strength": 0.5}
    assert metadata.parameters_text(record) == (
        "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: dpmpp2m, "
        'Schedule type: "shift:mu=1", CFG scale: 3.5, Seed: 7, Size: 64x32, '
        "Model: pixart.safetensors, Denoising strength: 0.5"
    )
    assert metadata.parameters_text({"prompt": "p"}) == "p"
    assert metadata.parameters_text({"seed": 0, "cfg_scale": 0}) == "\nCFG scale: 0, Seed: 0"


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_foreign_user_comments(order):
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"UNICODE\0" + "猫 cat\nSteps: 20, Seed: 1".encode(order)}
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=exif.tobytes())
    assert metadata.read_parameters(buffer.getvalue()) == "猫 cat\nSteps: 20, Seed: 1"
    assert metadata.read_record(buffer.getvalue()) is None


@pytest.mark.parametrize("compressed", [False, True])
def test_foreign_png_text(compressed):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", "猫\nSteps: 1", zip=compressed)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=info)
    assert metadata.read_parameters(buffer.getvalue()) == "猫\nSteps: 1"


def test_record_must_be_writable():
    for record, word in (
        ({"prompt": "x"}, "version"),
        ({"version": 2}, "version"),
        ({"version": 1, "x": object()}, "JSON"),
        ({"version": 1, "prompt": "x" * 2**20}, "at most"),
    ):
        with pytest.raises(UsageError, match=word):
            image.encode(BLACK, "png", record=record)


def test_infinite_numbers_become_null():
    record = {"version": 1, "psnr": float("inf"), "rows": [{"x": float("nan")}]}
    content = image.encode(BLACK, "webp", record=record)
    assert metadata.read_record(content) == {"version": 1, "psnr": None, "rows": [{"x": None}]}


def png_with(*chunks):
    return _containers.insert_png(image.encode(BLACK, "png"), list(chunks))


@pytest.mark.parametrize(
    "text, word",
    [
        ('{"version": 1, "x": "' + "y" * 2**20 + '"}', "over"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("{}", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"version": 2}', "newer"),
    ],
)
def test_hostile_records_in_png(text, word):
    with pytest.raises(InputError, match=word):
        metadata.read_record(png_with(_containers.png_text("dit", text)))


def test_a_text_bomb_is_refused():
    bomb = b"dit\0\0" + zlib.compress(b"x" * (64 << 20))
    with pytest.raises(InputError, match="grows"):
        metadata.read_record(png_with(_containers.png_chunk(b"zTXt", bomb)))
    with pytest.raises(InputError, match="over"):
        metadata.read_record(png_with(struct.pack(">I4s", 2**31, b"tEXt")))
    with pytest.raises(InputError, match="over"):
        metadata.read_parameters(png_with(_containers.png_text("parameters", "x" * (2 << 20))))


def test_hostile_xmp_in_jpeg():
    def jpeg(packet, extension=b""):
        plain = image.encode(BLACK, "jpeg")
        return _containers.insert_jpeg(plain, b"", packet, extension)

    entity = b'<!DOCTYPE x [<!ENTITY a "b">]><dit:record>&a;</dit:record>'
    with pytest.raises(InputError, match="damaged"):
        metadata.read_record(jpeg(entity))
    assert metadata.read_record(jpeg(b"\xff\xfe<dit:record>")) is None
    whole = metadata.xmp_packet(metadata.record_property('{"version":1}'))
    assert metadata.read_record(jpeg(b"no digest of it", whole)) is None
    assert metadata.read_record(jpeg(_containers.extension_digest(whole).encode(), whole))
    with pytest.raises(InputError, match="extended XMP"):
        metadata.read_record(jpeg(b"x", b"y" * (9 << 20)))


def test_a_record_as_an_attribute_is_read():
    """Other XMP writers turn simple elements into attributes."""
    content = _containers.insert_jpeg(
        image.encode(BLACK, "jpeg"), b"", b'<x dit:record="{&quot;version&quot;:1}"/>', b""
    )
    assert metadata.read_record(content) == {"version": 1}


def test_no_picture(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    for source in (tmp_path / "x.png", tmp_path / "no.png", tmp_path, b"", b"\x89PNG", b"GIF89a"):
        with pytest.raises(InputError):
            metadata.read_record(source)


BASES = {f: image.encode(BLACK, f, record=FULL) for f in image.FORMATS}


@settings(max_examples=100, deadline=None)
@given(
    format=st.sampled_from(sorted(BASES)),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 4000),
)
def test_damage_raises_input_error_only(format, edits, cut):
    content = bytearray(BASES[format])
    for place, value in edits:
        content[place % len(content)] = value
    for read, kind in ((metadata.read_record, dict), (metadata.read_parameters, str)):
        try:
            assert isinstance(read(bytes(content[: len(content) - cut])), (kind, type(None)))
        except InputError:
            pass


@pytest.mark.parametrize("code", ["utf-8", "utf-16-be", "utf-16-le", "utf-16"])
@pytest.mark.parametrize(
    "text", ["a cat \u732b\nSteps: 4, Seed: 7", "ein K\u00e4tzchen", "plain words", "\u732b\u732b\u732b\u72ac\u72ac"]
)
def test_user_comment_in_every_encoding_that_writers_use(text, code):
    """EXIF's UNICODE means UTF-16 without saying which; some writers put UTF-8 there."""
    if code in ("utf-8", "utf-16-le") and not text.isascii() and "cat" not in text and code != "utf-8":
        pytest.skip("letters of two bytes without a mark: the order cannot be known")
    if code == "utf-8" and "cat" not in text and sum(map(str.isascii, text)) < len(text) / 2:
        pytest.skip("no letter says that it is UTF-8")
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"UNICODE\0" + text.encode(code)}
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif.tobytes())
    assert metadata.read_parameters(buffer.getvalue()) == text
