"""A user's images: every way to caption them, and every way in which they can be bad."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit_tools.core.errors import InputError
from dit_tools.tasks.train import image_folder

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


def read(source: Path, **options):
    told = []
    pixels, captions = image_folder.read_folder(source, 8, told.append, **options)
    assert pixels.shape[1:] == (4, 8, 8) and pixels.dtype == np.uint8
    reasons = [(Path(e["file"]).name, e["reason"]) for e in told if e["type"] == "skipped"]
    return pixels, captions, reasons


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i, (name, colour) in enumerate(COLOURS.items()):
        inside = "more/" * (i == 2)
        Image.new("RGB", (12, 10), colour).save(folder / f"{inside}{name}.png")
    return folder


def captioned(folder: Path, how: str) -> Path:
    """Add captions in one of the ways; the source to read."""
    files = {"red": "red.png", "green": "green.png", "blue": "more/blue.png"}
    rows = [{"file": file, "caption": f"all {name}"} for name, file in files.items()]
    if how == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    elif how == "csv":
        lines = [f'{row["file"]},"{row["caption"]}"' for row in rows]
        text = "\n".join(["file,caption", *lines])
        (folder / "captions.csv").write_text(text, encoding="utf-8")
    else:
        for name, file in files.items():
            (folder / file).with_suffix(".txt").write_text(f" all\n {name} ", encoding="utf-8")
    if how != "zip":
        return folder
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, f"inner/{path.relative_to(folder)}")
    return folder.with_suffix(".zip")


@pytest.mark.parametrize("how", ["txt", "jsonl", "csv", "zip"])
def test_every_way_gives_the_same(plain: Path, how: str) -> None:
    pixels, captions, reasons = read(captioned(plain, how))
    assert sorted(captions) == ["all blue", "all green", "all red"] and not reasons
    for image, caption in zip(pixels, captions, strict=True):
        assert tuple(image[:3, 4, 4]) == COLOURS[caption.split()[1]] and image[3].min() == 255


def test_what_is_bad_is_named_and_left_out(plain: Path) -> None:
    captioned(plain, "txt")
    whole = (plain / "red.png").read_bytes()
    (plain / "red.png").write_bytes(whole[:40])
    (plain / "green.txt").write_text("  \n", encoding="utf-8")
    Image.new("RGB", (4, 4)).save(plain / "alone.jpg")
    Image.new("RGB", (4, 4)).save(plain / "latin.jpg")
    (plain / "latin.txt").write_bytes("bl\u00e4ulich".encode("latin-1"))
    _, captions, reasons = read(plain)
    assert captions == ["all blue"]
    found = dict(reasons)
    assert found["alone.jpg"] == "no caption: alone.txt is not there"
    assert found["green.txt"] == "the caption is empty or too long"
    assert found["latin.txt"] == "not UTF-8 text that can be read"
    assert found["red.png"].startswith("not an image")
    with pytest.raises(InputError, match="alone.jpg.*strict = false"):
        read(plain, strict=True)


def test_bad_rows_of_a_table_are_named_by_their_line(plain: Path) -> None:
    rows = [
        '{"file": "red.png", "caption": "red"}',
        "{broken",
        '{"caption": "x"}',
        '{"file": "gone.png", "caption": "x"}',
        '{"file": "red.png", "caption": "again"}',
        '{"file": "green.png", "caption": 5}',
    ]
    (plain / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    _, captions, reasons = read(plain)
    assert captions == ["red"]
    text = " | ".join(f"{name}: {reason}" for name, reason in reasons)
    for words in (
        "line 2: not a JSON object",
        "line 3: no 'file'",
        "line 4: names 'gone.png'",
        "line 5: names 'red.png' again",
        "green.png: its caption is empty",
        "blue.png: no caption in captions.jsonl",
    ):
        assert words in text


def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image with a caption; put a .txt"):
        read(tmp_path / "empty")
    (tmp_path / "not.zip").write_bytes(b"nothing")
    with pytest.raises(InputError, match="it is not a zip"):
        read(tmp_path / "not.zip")


def test_a_name_that_leaves_the_folder_is_not_followed(plain: Path) -> None:
    Image.new("RGB", (4, 4)).save(plain.parent / "outside.png")
    row = '{"file": "../outside.png", "caption": "x"}\n{"file": "red.png", "caption": "red"}'
    (plain / "captions.jsonl").write_text(row, encoding="utf-8")
    _, captions, reasons = read(plain)
    assert captions == ["red"] and "which is not there" in reasons[0][1]


def test_opacity_orientation_and_16_bits_are_kept() -> None:
    def content(picture: Image.Image, **options) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **options)
        return buffer.getvalue()

    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    made = image_folder.decode_image(content(half), 4)
    assert made[:3].min() == 255 and made[3].max() == 0  # white below, nothing in front
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert set(image_folder.decode_image(content(deep), 4)[:3].ravel()) == {128}
    wide = Image.new("RGB", (8, 4), "red")
    wide.paste("blue", (4, 0, 8, 4))
    turned = Image.Exif()
    turned[0x0112] = 3
    assert image_folder.decode_image(content(wide, exif=turned), 4)[2, 2, 0] > 200  # blue is on the left now
