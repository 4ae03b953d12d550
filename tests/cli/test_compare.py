"""``dit generate --compare`` and the presets of ``--cache`` as a user meets them."""

import json

from tests.support.program import dit


def test_compare_on_the_built_in_model(tmp_path):
    done = dit(
        "generate", "cat", "--cache", "output:interval=3", "--compare", "--steps", "8", "-o", "a.png", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "a.png\n")
    line = done.stderr.strip()
    assert line.startswith("dit: a.png: ") and " s instead of " in line
    assert "PSNR " in line and "SSIM " in line and line.count("\n") == 0
    told = json.loads(dit("info", "a.png", "--json", cwd=tmp_path).stdout.splitlines()[0])
    assert "compare" in json.dumps(told)


def test_compare_without_a_cache_is_refused(tmp_path):
    done = dit("generate", "cat", "--compare", "-o", "a.png", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("dit: --compare: an image without a cache; give one, such as --cache fast\n")
    assert not (tmp_path / "a.png").exists()


def test_help_lists_presets_and_explains_one(tmp_path):
    listed = dit("generate", "--cache", "help", cwd=tmp_path).stdout
    line = "  fast = taylorseer:interval=4, or the setting measured on the model"
    assert line in listed.splitlines()
    assert "taylorseer" in dit("generate", "--cache", "fast:help", cwd=tmp_path).stdout.lower()
    done = dit("generate", "cat", "--cache", "fsat", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'fast'" in done.stderr
