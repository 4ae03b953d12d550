"""``dit superres``, ``dit restore`` and ``dit degrade``, as a user starts them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dit_tools.media import metadata
from tests.support.photographs import network_folder, samples, schemas
from tests.support.program import PROGRAM, dit, environment

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MANIFEST = ".dit-manifest.jsonl"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with small networks and photographs of many kinds."""
    folder = tmp_path_factory.mktemp("photographs")
    for task in ("superres", "restore"):
        network_folder(folder / task, task)
    save = lambda name, array, **more: Image.fromarray(array).save(folder / name, **more)  # noqa: E731
    (folder / "set").mkdir()
    for seed in range(3):
        save(f"set/{seed}.png", samples(24, 32, seed=seed))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    save("turned.jpg", samples(24, 32), exif=exif, icc_profile=PROFILE, quality=95)
    save("grey.png", samples(24, 32, 1)[..., 0])
    save("alpha.png", samples(24, 32, 4))
    Image.fromarray(samples(24, 32)).convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(samples(24, 32)).convert("1").save(folder / "bit.png")
    Image.fromarray(samples(24, 32)).quantize(8).save(folder / "palette.gif", transparency=0)
    save("float.tif", samples(24, 32, 1)[..., 0].astype(np.float32) / 255)
    save("dot.png", samples(1, 1))
    save("line.png", samples(1, 90))
    moving = [Image.fromarray(samples(24, 32, seed=seed)) for seed in range(2)]
    moving[0].save(folder / "moving.webp", save_all=True, append_images=moving[1:])
    import cv2

    cv2.imwrite(str(folder / "deep.png"), samples(24, 32, bits=16))
    return folder


def run(place: Path, command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    model = () if command == "degrade" else ("-m", place / command)
    return dit(command, *words, *model, cwd=place)


@pytest.mark.parametrize("command", ["superres", "restore"])
@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("turned.jpg", "RGB", (24, 32)),
        ("grey.png", "L", (32, 24)),
        ("alpha.png", "RGBA", (32, 24)),
        ("cmyk.tif", "RGB", (32, 24)),
        ("bit.png", "L", (32, 24)),
        ("palette.gif", "RGBA", (32, 24)),
        ("float.tif", "I;16", (32, 24)),
        ("deep.png", "RGB", (32, 24)),
        ("dot.png", "RGB", (1, 1)),
        ("line.png", "RGB", (90, 1)),
        ("moving.webp", "RGB", (32, 24)),
    ],
)
def test_every_kind_of_photograph(place, tmp_path, command, name, mode, size) -> None:
    more = ("--scale", "2") if command == "superres" else ()
    done = run(place, command, name, "-o", tmp_path / "made.png", *more)
    assert done.returncode == 0, done.stderr
    factor = 2 if command == "superres" else 1
    with Image.open(tmp_path / "made.png") as made:
        assert (made.mode, made.size) == (mode, (size[0] * factor, size[1] * factor))
    import cv2

    deep = cv2.imread(str(tmp_path / "made.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert deep == (name in ("deep.png", "float.tif"))
    assert ("first frame of an animation" in done.stderr) == (name == "moving.webp")


@pytest.mark.parametrize("command", ["superres", "restore", "degrade"])
def test_profile_and_exif_stay_and_the_record_tells(place, tmp_path, command) -> None:
    done = run(place, command, "turned.jpg", "-o", tmp_path / "made.jpg")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "made.jpg") as made:
        assert made.info["icc_profile"] == PROFILE
        assert made.getexif()[0x010F] == "Camera" and made.getexif().get(0x0112, 1) == 1
    record = metadata.read_record(tmp_path / "made.jpg")
    assert record and record["command"] == command and record["source"] == "turned.jpg"
    assert dit("info", tmp_path / "made.jpg").returncode == 0


def test_the_sizes_of_superres(place, tmp_path) -> None:
    for words, size in ((("--scale", "1.5"), (48, 36)), (("--size", "100x60"), (80, 60)), ((), (128, 96)),
                        (("--megapixels", "0.01"), (115, 87)), (("--scale", "5"), (160, 120))):  # fmt: skip
        done = run(place, "superres", "set/0.png", "-o", tmp_path / "made.png", "--overwrite", *words)
        assert done.returncode == 0, done.stderr
        assert Image.open(tmp_path / "made.png").size == size


def test_a_panorama(place, tmp_path) -> None:
    wide = np.random.default_rng(0).integers(256, size=(40, 20000, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for command, more, size in (("restore", (), (20000, 40)), ("superres", ("--scale", "2"), (40000, 80))):
        done = run(place, command, tmp_path / "wide.png", "-o", tmp_path / f"{command}.png", *more)
        assert done.returncode == 0, done.stderr
        assert Image.open(tmp_path / f"{command}.png").size == size


def test_strength_0_restores_the_file_itself(place, tmp_path) -> None:
    done = run(place, "restore", "deep.png", "--strength", "0", "-o", tmp_path / "made.png", "--no-metadata")
    assert done.returncode == 0, done.stderr
    import cv2

    made, given = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (tmp_path / "made.png", place / "deep.png"))
    assert (made == given).all()
    assert metadata.read_record(tmp_path / "made.png") is None


def test_a_folder_goes_on_where_it_stopped(place, tmp_path) -> None:
    out = f"{tmp_path}/out/"
    first = run(place, "superres", "set/0.png", "set/1.png", "-o", out)
    assert first.returncode == 0 and len(first.stdout.splitlines()) == 2
    made = (tmp_path / "out/0.png").stat().st_mtime_ns
    again = run(place, "superres", "set", "-o", out)
    assert again.returncode == 0 and "2 images skipped" in again.stderr
    assert sorted(again.stdout.splitlines()) == [f"{tmp_path}/out/{seed}.png" for seed in range(3)]
    assert (tmp_path / "out/0.png").stat().st_mtime_ns == made
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST, "0.png", "1.png", "2.png"]
    other = run(place, "superres", "set/0.png", "-o", out, "--scale", "2")  # another request: another file
    assert other.stdout.splitlines() == [f"{tmp_path}/out/0-2.png"]


def test_a_changed_source_is_made_again(place, tmp_path) -> None:
    source = Path(shutil.copy(place / "set/0.png", tmp_path / "a.png"))
    assert run(place, "restore", source, "-o", f"{tmp_path}/out/").returncode == 0
    Image.fromarray(samples(24, 32, seed=9)).save(source)
    again = run(place, "restore", source, "-o", f"{tmp_path}/out/")
    assert again.stdout.splitlines() == [f"{tmp_path}/out/a-2.png"]


def test_a_broken_file_does_not_stop_the_others(place, tmp_path) -> None:
    shutil.copytree(place / "set", tmp_path / "set")
    (tmp_path / "set/1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    done = run(place, "restore", tmp_path / "set", "-o", f"{tmp_path}/out/")
    assert done.returncode == 3 and len(done.stdout.splitlines()) == 2
    assert "1 image failed" in done.stderr and "1.png" in done.stderr and "Traceback" not in done.stderr


def test_json_reference_and_sheet(place, tmp_path) -> None:
    words = ("set", "-o", f"{tmp_path}/out/", "--json", "--strength", "0", "--reference", "set", "--compare")
    done = run(place, "restore", *words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events] == ["start", "item", "item", "item", "done"]
    for event in events[1:4]:
        assert (event["psnr"], event["psnr_y"], event["ssim"]) == (200, 200, 1)
    assert events[4]["files"] == [f"{tmp_path}/out/{seed}-compare.png" for seed in range(3)]
    for sheet in map(Image.open, events[4]["files"]):
        assert sheet.width > 3 * 32
    missing = run(place, "restore", "grey.png", "-o", f"{tmp_path}/out/", "--reference", "set")
    assert missing.returncode == 4 and "nothing named grey" in missing.stderr


def test_the_psnr_is_that_of_the_files(place, tmp_path) -> None:
    assert run(place, "degrade", "set", "-o", f"{tmp_path}/bad/").returncode == 0
    done = run(place, "restore", tmp_path / "bad", "-o", f"{tmp_path}/out/", "--reference", "set", "--json")
    for event in map(json.loads, done.stdout.splitlines()[1:-1]):
        made, given = (
            np.asarray(Image.open(p), float) for p in (event["path"], place / "set" / Path(event["path"]).name)
        )
        assert event["psnr"] == pytest.approx(10 * np.log10(255**2 / np.square(made - given).mean()), abs=2e-3)


@pytest.mark.parametrize("command", ["superres", "restore", "degrade"])
def test_events_and_records_are_as_their_schemas_say(place, tmp_path, command) -> None:
    events, records = schemas()
    words = ("set", "-o", f"{tmp_path}/out/", "--json", "--compare")
    lines = [line for _ in range(2) for line in run(place, command, *words).stdout.splitlines()]
    assert [json.loads(line)["type"] for line in lines].count("skip") == 3
    for line in lines:
        events.validate(json.loads(line))
    records.validate(metadata.read_record(tmp_path / "out/0.png"))


def test_degrading_depends_on_seed_and_name_only(place, tmp_path) -> None:
    words = ("--degrade", "noise:sigma=5..50+jpeg:quality=30..90")
    for name, more in (("a", ("set",)), ("b", ("set/2.png", "set/0.png")), ("c", ("set", "--seed", "1"))):
        assert run(place, "degrade", *more, *words, "-o", f"{tmp_path}/{name}/").returncode == 0
    a, b, c = (np.asarray(Image.open(tmp_path / name / "0.png")) for name in "abc")
    assert (a == b).all() and (a != c).any()
    assert (np.asarray(Image.open(tmp_path / "a/1.png")) != a).any()


def test_degrading_can_change_the_size_with_its_alpha(place, tmp_path) -> None:
    done = run(place, "degrade", "alpha.png", "--degrade", "downscale:scale=2", "-o", tmp_path / "small.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "small.png") as small:
        assert (small.mode, small.size) == ("RGBA", (16, 12))


def test_stdout_is_the_file(place) -> None:
    words = [PROGRAM, "restore", "grey.png", "-m", "restore", "-o", "-", "--format", "webp"]
    done = subprocess.run(words, capture_output=True, env=environment(), cwd=place, timeout=60)
    assert done.returncode == 0 and Image.open(io.BytesIO(done.stdout)).format == "WEBP"


@pytest.mark.parametrize(
    ("command", "words", "code", "said"),
    [
        ("superres", ("nowhere.png",), 4, "nowhere.png: no such file or folder"),
        ("superres", ("grey.png", "--scale", "0.5"), 2, "--scale 0.5: out of range"),
        ("superres", ("grey.png", "--size", "20x20"), 4, "grey.png: is 32x24 already"),
        ("superres", ("grey.png", "--scale", "2", "--size", "99x99"), 2, "--scale and --size exclude each other"),
        ("superres", ("grey.png", "--strength", "2"), 2, "--strength 2: out of range"),
        ("superres", ("grey.png", "--tile", "3"), 2, "--tile 3: out of range"),
        ("superres", ("grey.png", "--quality", "x"), 2, "--quality x: out of range"),
        ("superres", ("set", "-o", "one.png"), 2, "one file for 3 images"),
        ("superres", ("alpha.png", "-o", "a.jpg"), 2, "jpeg holds no transparency"),
        ("superres", ("grey.png", "--dtype", "float16"), 2, "--dtype float16: not for photographs"),
        ("superres", ("grey.png", "-o", "a.xyz"), 2, "no such image format"),
        ("superres", ("grey.png", "-o", "a.png", "--format", "webp"), 2, "--format webp"),
        ("restore", ("grey.png", "--task", "denose"), 2, "did you mean 'denoise'"),
        ("restore", ("grey.png", "--compare", "-o", "-"), 2, "--compare: writes a sheet"),
        ("degrade", ("grey.png", "--degrade", "niose"), 2, "did you mean 'noise'"),
        ("degrade", ("grey.png", "--seed", "-1"), 2, "--seed -1: out of range"),
    ],
)
def test_mistakes_are_one_clear_line(place, command, words, code, said) -> None:
    before = sorted(place.rglob("*"))
    done = run(place, command, *words)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dit: ") and said in lines[0]
    assert sorted(place.rglob("*")) == before


def test_no_torch_is_imported(place, tmp_path) -> None:
    from tests.cli.test_startup import imported

    words = ("restore", str(place / "grey.png"), "-m", str(place / "restore"), "-o", str(tmp_path / "made.png"))
    found = imported(*words)
    assert "onnxruntime" in found and not {"torch", "diffusers", "transformers"} & found
