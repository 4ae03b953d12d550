"""``dit eval`` as a user starts it."""

import json

import numpy as np
import pytest

from dit_tools.media import image
from tests.jobs.test_record import validator
from tests.support.program import dit

rng = np.random.default_rng(0)
NOISE = rng.random((24, 20, 3)).astype(np.float32)


def write(path, pixels, **options):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(image.encode(pixels.astype(np.float32), "png", **options))


def test_pairs_are_found_by_name_and_a_file_without_partner_is_named(tmp_path):
    for name, error in (("a", 0.0), ("b", 0.1), ("c", 0.1)):
        write(tmp_path / f"real/{name}.png", NOISE * 0.8, bits=16)
        write(tmp_path / f"made/{name}.png", NOISE * 0.8 + error, bits=16)
    (tmp_path / "real/c.png").unlink()
    write(tmp_path / "made/d.png", NOISE[:12, :12])
    write(tmp_path / "real/d.png", NOISE)
    done = dit("eval", "made", "-r", "real", "--metric", "psnr", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert "made/c.png: no reference is called c" in done.stderr
    assert "made/d.png: is 12x12, its reference 20x24" in done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines())
    validator("eval").validate(found)
    assert found["count"] == 2 and found["value"] is None  # one pair is equal: infinite
    done = dit("eval", "made/b.png", "-r", "real/b.png", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    psnr, ssim = done.stdout.splitlines()
    assert psnr == "psnr       20 dB (1 image; higher is better)" and ssim.startswith("ssim ")


def test_retrieval_asks_the_pictures_for_their_prompts(tmp_path):
    write(tmp_path / "a.png", NOISE, record={"version": 1, "prompt": "red heart", "seed": 0})
    write(tmp_path / "b.png", NOISE)
    (tmp_path / "p.jsonl").write_text('{"file": "b.png", "prompt": "pizza"}\n')
    done = dit("eval", "a.png", "b.png", cwd=tmp_path)
    assert (done.returncode, "b.png: carries no prompt" in done.stderr) == (4, True)
    done = dit("eval", "a.png", "b.png", "--prompts", "p.jsonl", "--json", cwd=tmp_path)
    (found,) = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0 and found["metric"] == "retrieval" and found["count"] == 2


def test_an_autoencoder_is_measured_through_itself(tmp_path):
    rows, columns = np.mgrid[:128, :128] / 127
    disc = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.16  # opaque on nothing, as in its training
    write(tmp_path / "a.png", np.stack([rows, columns, 1 - rows, disc], 2))
    done = dit("eval", "a.png", "--through", "emoji", "--metric", "psnr", "--json", cwd=tmp_path)
    assert done.returncode == 0 and 18 < json.loads(done.stdout)["value"] < 60
    write(tmp_path / "b.png", NOISE)
    done = dit("eval", "b.png", "--through", "emoji", cwd=tmp_path)
    assert done.returncode == 4 and "b.png: is 20x24, emoji takes 128x128" in done.stderr


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("no.png",), 4, "no.png: no such file"),
        (("a.png", "--metric", "psnr"), 2, "give --reference or --through"),
        (("a.png", "--metric", "frechet", "--through", "emoji"), 2, "two sets of images"),
        (("a.png", "--metric", "psrn"), 2, "did you mean 'psnr'?"),
        (("bad.png", "-r", "a.png"), 4, "bad.png"),
        (("a.png", "--prompts", "bad.png"), 4, "line 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, code, words):
    write(tmp_path / "a.png", NOISE)
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    done = dit("eval", *arguments, cwd=tmp_path)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
