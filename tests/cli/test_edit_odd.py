"""``dit edit`` as a user starts it, on files that photographers and the web have: each is edited,
with a word on what was fixed, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dit_tools.media import image
from tests.support.program import dit, python

FAST = ("--steps", "1", "--cfg-scale", "1")
SIZE = (60, 90)
"""Height and width of the images."""


def drawn() -> np.ndarray:
    """A smooth scene without transparency, (60, 90, 3)."""
    y, x = np.mgrid[0 : 1 : SIZE[0] * 1j, 0 : 1 : SIZE[1] * 1j]
    return np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x * y)], 2).astype(np.float32)


PICTURES = {
    "plain.png": None,
    "print.jpg": "CMYK converted to sRGB",
    "palette.png": None,
    "frames.gif": "first frame of an animation",
    "move.webp": "first frame of an animation",
    "grey.png": "the grey image became a colour image",
    "bits.png": "the grey image became a colour image",
}
"""Image -> what is said about it."""
MASKS = {
    "sharp.jpg": "mask is not black and white: cut at half",
    "larger.png": "mask scaled from 180x120",
    "soft.png": "mask is not black and white: cut at half",
    "soft-small.png": "mask scaled from 45x30; mask is not black and white: cut at half",
}
"""Mask -> what is said about it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every mask of this file, and the images in another within it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("odd")
    inner = folder / "pictures"
    inner.mkdir()
    scene = Image.fromarray((255 * drawn()).round().astype(np.uint8))
    scene.save(inner / "plain.png")
    scene.convert("CMYK").save(inner / "print.jpg")
    turned = [scene.rotate(angle) for angle in (90, 180)]
    scene.save(inner / "frames.gif", save_all=True, append_images=turned)
    scene.save(inner / "move.webp", save_all=True, append_images=turned, lossless=True)
    scene.convert("L").save(inner / "grey.png")
    scene.convert("P").save(inner / "palette.png")
    scene.convert("1").save(inner / "bits.png")
    (folder / "cut.png").write_bytes((inner / "plain.png").read_bytes()[:900])
    (folder / "none.png").write_bytes(b"")
    box = np.zeros(SIZE, np.uint8)
    box[10:40, 20:60] = 255
    mask, near = Image.fromarray(box), Image.Resampling.NEAREST
    mask.save(folder / "mask.png")
    mask.save(folder / "sharp.jpg", quality=30)
    mask.resize((180, 120), near).save(folder / "larger.png")
    soft = Image.fromarray(box // 3 * 2)
    soft.save(folder / "soft.png")
    soft.resize((45, 30), near).save(folder / "soft-small.png")
    mask.resize((60, 60)).save(folder / "square.png")
    return folder


def items(place: Path, *arguments: str) -> list[dict]:
    """The events of the edits of one command, none of which fails."""
    done = dit("edit", *arguments, "--json", *FAST, cwd=place)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [e for line in done.stdout.splitlines() if (e := json.loads(line))["type"] == "item"]


def test_pictures_are_edited_within_the_mask_and_kept_outside(place):
    made = items(place, "pictures", "a cat", "--mask", "mask.png", "-o", "out/")
    mask = image.read(place / "mask.png").pixels[:, :, 0] > 0.5
    assert {Path(item["source"]).name for item in made} == set(PICTURES)
    for item in made:
        name = Path(item["source"]).name
        after, before = (image.read(place / item[key]).pixels for key in ("path", "source"))
        assert item.get("note") == PICTURES[name], name
        assert after.shape == (*SIZE, 3)  # no alpha is made up
        assert (after != before)[mask].any()
        if not name.endswith((".jpg", ".webp")):  # the others blur as they are written
            assert np.array_equal(after[~mask], np.broadcast_to(before, after.shape)[~mask])


def test_masks_are_mended_with_a_word(place):
    lines = [json.dumps({"prompt": "a cat", "mask": str(place / name)}) for name in MASKS]
    (place / "todo.jsonl").write_text("\n".join(lines))
    made = items(place, "pictures/plain.png", "--instructions", "todo.jsonl", "-o", "masks/")
    before = image.read(place / "pictures/plain.png").pixels
    for item, note in zip(made, MASKS.values(), strict=True):
        assert item.get("note") == note
        changed = (image.read(place / item["path"]).pixels != before).any(axis=2)
        assert changed[12:38, 22:58].mean() > 0.9
        assert not changed[:8].any() and not changed[42:].any() and not changed[:, :18].any()


REFUSED = [
    (("pictures/plain.png", "--mask", "square.png"), 4, "square.png: a mask of 60x60 for an ima"),
    (("pictures/plain.png", "--mask", "none.png"), 4, "none.png: not an image"),
    (("pictures/plain.png", "--mask", "200,0,5,5"), 2, "--mask 200,0,5,5: outside the image"),
    (("cut.png",), 4, "cut.png: cannot be read: damaged or truncated image"),
    (("pictures/frames.gif", "-o", "refused.gif"), 2, "refused.gif: suffix '.gif': no such ima"),
]


@pytest.mark.parametrize("arguments, code, message", REFUSED, ids=[m[:30] for *_, m in REFUSED])
def test_what_cannot_be_mended_is_refused_in_one_line(place, arguments, code, message):
    picture, *options = arguments
    target = () if "-o" in options else ("-o", "refused.png")
    done = dit("edit", picture, "a cat", *options, *target, *FAST, cwd=place)
    assert done.returncode == code and done.stderr.startswith(f"dit: {message}"), done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not list(place.glob("refused*"))


def test_latents_of_another_model_are_refused_by_their_hash(place):
    made = dit("invert", "pictures/plain.png", "-m", "emoji-small", "-o", "other.latent", *FAST, cwd=place)
    assert made.returncode == 0, made.stderr
    done = dit(
        "edit",
        "pictures/plain.png",
        "a cat",
        "--inversion",
        "other.latent",
        "-m",
        "emoji",
        "-o",
        "refused.png",
        cwd=place,
    )
    assert done.returncode == 5 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("dit: other.latent: made with revision ")
    assert not (place / "refused.png").exists()


def test_twenty_megapixels_take_less_than_three_gigabytes(place):
    from PIL import Image

    Image.new("RGB", (5000, 4000), "green").save(place / "large.jpg")
    code = (
        "import resource, sys\nfrom dit_cli import main\ntry:\n    main.main(sys.argv[1:])\n"
        "except SystemExit as left:\n    print(left.code or 0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = python(
        code, "edit", "large.jpg", "a cat", "--mask", "900,900,800,800", "-o", "large-out.jpg", *FAST, cwd=place
    )
    path, status, kilobytes = done.stdout.split()
    assert (path, status) == ("large-out.jpg", "0"), done.stderr
    assert int(kilobytes) < 3_000_000
    assert image.read(place / "large-out.jpg").pixels.shape == (4000, 5000, 3)
