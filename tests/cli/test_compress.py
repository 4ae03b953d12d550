"""``dit compress`` and ``dit decompress`` as a user runs them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from referencing import Registry, Resource

from tests.support.coded_scenes import scene
from tests.support.program import PLAIN, PROGRAM, dit, python

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schema"


def events(text: str) -> list[dict]:
    """The lines of ``--json``, each checked against the schema."""
    documents = [json.loads((SCHEMAS / f"{name}.schema.json").read_text()) for name in ("events", "record")]
    registry = Registry().with_resources([(d["$id"], Resource.from_contents(d)) for d in documents])
    validator = Draft202012Validator(documents[0], registry=registry)
    made = [json.loads(line) for line in text.splitlines()]
    for event in made:
        validator.validate(event)
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(scene(180, 240, seed)).save(folder / f"scene{seed}.png")
    return folder


def test_a_folder_there_and_back(photos: Path, tmp_path: Path) -> None:
    small, back, torch = tmp_path / "small", tmp_path / "back", tmp_path / "torch"
    made = dit("compress", photos, "-o", f"{small}/", "--bpp", "0.6", "--json")
    assert made.returncode == 0, made.stderr
    items = [event for event in events(made.stdout) if event["type"] == "item"]
    assert len(items) == 3
    for item in items:
        content = Path(item["path"]).read_bytes()
        assert len(content) == item["bytes"]
        assert 0.97 * 0.6 <= item["bpp"] <= 0.6
        assert item["psnr"] > 24 and item["ms_ssim"] > 0.8
    read = dit("decompress", small, "-o", f"{back}/", env={"OMP_NUM_THREADS": "2"})
    assert read.returncode == 0, read.stderr
    other = dit("compress", "--decode", small, "-o", f"{torch}/", "--backend", "torch")
    assert other.returncode == 0, other.stderr
    for item in items:
        name = Path(item["source"]).name
        one, two = (np.asarray(Image.open(folder / name)).astype(int) for folder in (back, torch))
        assert abs(one - two).max() <= 2
        source = np.asarray(Image.open(photos / name)).astype(int)
        psnr = 10 * np.log10(255**2 / np.square(one - source).mean())
        assert psnr == pytest.approx(item["psnr"], abs=0.02)


def test_decoding_loads_no_torch(photos: Path, tmp_path: Path) -> None:
    assert dit("compress", photos / "scene0.png", "-o", tmp_path / "a.dit").returncode == 0
    code = (
        "import sys\nfrom dit_cli.main import run\n"
        f"run(['decompress', {str(tmp_path / 'a.dit')!r}, '-o', {str(tmp_path / 'a.png')!r}])\n"
        "print([name for name in ('torch', 'diffusers', 'onnx') if name in sys.modules])"
    )
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_a_pipe(photos: Path) -> None:
    environment = {**os.environ, **PLAIN}
    source = (photos / "scene1.png").read_bytes()
    packed = subprocess.run([PROGRAM, "compress", "-"], input=source, capture_output=True, env=environment, check=True)
    assert packed.stdout[:4] == b"DITC"
    read = subprocess.run(
        [PROGRAM, "decompress", "-"], input=packed.stdout, capture_output=True, env=environment, check=True
    )
    assert Image.open(io.BytesIO(read.stdout)).size == (240, 180)


def test_target_size_and_psnr(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.dit"
    made = dit("compress", photos / "scene2.png", "-o", out, "--target-size", "4kB")
    assert made.returncode == 0, made.stderr
    assert 3880 <= out.stat().st_size <= 4000
    made = dit("compress", photos / "scene2.png", "-o", out, "--min-psnr", "33", "--json", "--overwrite")
    item = events(made.stdout)[1]
    assert 33 <= item["psnr"] < 33.2
    refused = dit("compress", photos / "scene2.png", "-o", out, "--target-size", "60B", "--overwrite")
    assert refused.returncode == 2 and "the least is" in refused.stderr
    assert out.stat().st_size == item["bytes"]


def test_what_a_photograph_carries(tmp_path: Path) -> None:
    from PIL import ImageCms

    rgba = np.dstack([scene(60, 80), np.arange(4800).reshape(60, 80).astype(np.uint8)])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[315] = "somebody"
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=profile, exif=exif)
    assert dit("compress", tmp_path / "a.png", "-o", tmp_path / "a.dit").returncode == 0
    assert dit("decompress", tmp_path / "a.dit", "-o", tmp_path / "b.png").returncode == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == profile
        assert image.getexif()[315] == "somebody"
        assert (np.asarray(image)[:, :, 3] == rgba[:, :, 3]).all()
    shown = json.loads(dit("info", tmp_path / "a.dit", "--json").stdout)
    schema = json.loads((SCHEMAS / "info.schema.json").read_text())
    Draft202012Validator(schema).validate(shown)
    assert shown["alpha"] and shown["channels"] == 4 and shown["compressed"]["exif"]
    assert dit("compress", tmp_path / "a.png", "-o", tmp_path / "s.dit", "--strip").returncode == 0
    stripped = json.loads(dit("info", tmp_path / "s.dit", "--json").stdout)
    assert stripped["icc"] is None and not stripped["compressed"]["exif"] and stripped["alpha"]


def test_sixteen_bits_and_grey(tmp_path: Path) -> None:
    grey = (scene(40, 50)[:, :, 1].astype(np.uint16)) * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    made = dit("compress", tmp_path / "a.png", "-o", tmp_path / "a.dit", "--quality", "80")
    assert made.returncode == 0 and "8 of 16 bits are kept" in made.stderr
    assert dit("decompress", tmp_path / "a.dit", "-o", tmp_path / "b.png").returncode == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"
        assert np.abs(np.asarray(image).astype(int) - grey // 257).mean() < 3


def test_a_broken_file_does_not_stop_the_others(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    assert dit("compress", photos / "scene0.png", "-o", folder / "whole.dit").returncode == 0
    content = bytearray((folder / "whole.dit").read_bytes())
    content[len(content) // 2] ^= 4
    (folder / "broken.dit").write_bytes(content)
    (folder / "cut.dit").write_bytes(content[:100])
    shutil.copy(photos / "scene0.png", folder / "picture.dit")
    read = dit("decompress", folder, "-o", f"{tmp_path / 'out'}/")
    assert read.returncode == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["whole.png"]
    assert all(name in read.stderr for name in ("broken.dit", "cut.dit", "picture.dit"))
    assert "Traceback" not in read.stderr


def test_a_run_goes_on_where_it_stopped(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert dit("compress", photos / "scene0.png", "-o", f"{out}/").returncode == 0
    before = (out / "scene0.dit").stat().st_mtime_ns
    assert dit("compress", photos, "-o", f"{out}/").returncode == 0
    assert (out / "scene0.dit").stat().st_mtime_ns == before
    assert sorted(path.name for path in out.glob("*.dit")) == ["scene0.dit", "scene1.dit", "scene2.dit"]
    again = dit("compress", photos, "-o", f"{out}/", "--json")
    assert [event["type"] for event in events(again.stdout)] == ["start", "skip", "skip", "skip", "done"]
    assert dit("compress", photos, "-o", f"{out}/", "--quality", "20").returncode == 0
    assert len(list(out.glob("*.dit"))) == 6


def test_thumbnail_and_comparison(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.dit"
    made = dit("compress", photos / "scene0.png", "-o", out, "--compare", "jpeg,webp", "--json")
    item, done = events(made.stdout)[1:]
    assert [row["format"] for row in item["compared"]] == ["dit", "jpeg", "webp"]
    assert done["files"] == [str(tmp_path / "a-compare.png")]
    assert Image.open(done["files"][0]).width > 2 * 240
    assert dit("decompress", out, "--thumbnail", "64", "-o", tmp_path / "t.png").returncode == 0
    assert Image.open(tmp_path / "t.png").size == (64, 48)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bpp", "0.2", "--quality", "3"], "exclude each other"),
        (["--quality", "101"], "give 0 to 100"),
        (["--target-size", "big"], "not a size"),
        (["--compare", "gif"], "no such format"),
        (["--method", "wavelt"], "did you mean 'wavelet'"),
        (["-o", "out.png"], "ends in .dit"),
        (["--thumbnail", "9"], "--thumbnail"),
        (["--decode", "--bpp", "1"], "--bpp"),
        (["--device", "abacus"], "cpu or cuda"),
    ],
)
def test_bad_requests(photos: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    made = dit("compress", photos / "scene0.png", *arguments, cwd=tmp_path)
    assert made.returncode == 2, made.stderr
    assert said in made.stderr and len(made.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_tables_are_refused_by_name(photos: Path, tmp_path: Path) -> None:
    import zlib

    assert dit("compress", photos / "scene0.png", "-o", tmp_path / "a.dit").returncode == 0
    content = bytearray((tmp_path / "a.dit").read_bytes())
    content[7:15] = b"another!"
    content[-4:] = zlib.crc32(content[:-4]).to_bytes(4, "little")
    (tmp_path / "a.dit").write_bytes(content)
    read = dit("decompress", tmp_path / "a.dit", "-o", tmp_path / "a.png")
    assert read.returncode == 5 and "other tables" in read.stderr
    assert not (tmp_path / "a.png").exists()
