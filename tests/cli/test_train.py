"""``dit train`` as a user starts it."""

from __future__ import annotations

import importlib
import json
import math
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dit_tools.models.loading.validation import header
from tests.support.program import PROGRAM, dit, environment
from tests.tasks.train.conftest import TEXT, draw_pictures
from tests.tasks.train.test_recipe import data

__all__ = ["data"]  # a fixture

SHORT = TEXT.replace("pictures = 480", "pictures = 80").replace("samples = 320", "samples = 96")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dit-train")
    draw_pictures(folder / "pictures")
    (folder / "pictures/broken.png").write_bytes(b"no image")
    (folder / "pictures/broken.txt").write_text("a broken image", encoding="utf-8")
    (folder / "tiny.toml").write_text(SHORT, encoding="utf-8")
    return folder


def test_from_pictures_to_a_model_that_generates(place: Path) -> None:
    stopped = dit("train", "tiny.toml", "--save-every", "2", "--max-steps", "4", "--stage", "autoencoder", cwd=place)
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert "pictures/broken.png: not an image" in stopped.stderr
    assert "dit: autoencoder 4/10 (40%): loss " in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("dit: stopped at --max-steps 4")

    done = dit("train", "tiny.toml", "--objective", "immiscible", "--objective", "sra", "--export", "onnx", cwd=place)
    assert (done.returncode, done.stdout.split()) == (0, ["runs/tiny/pipeline", "onnx"])
    assert "dit: transformer 6/6 (100%): loss " in done.stderr
    assert (place / "runs/tiny/loss.png").is_file()
    assert (place / "onnx/transformer.onnx").is_file()
    made = dit("generate", "red circle", "-m", "onnx", "--steps", "2", "-o", "x.png", cwd=place)
    assert (made.returncode, made.stdout.split()) == (0, ["x.png"]), made.stderr

    other = dit("train", "tiny.toml", cwd=place)
    assert other.returncode == 5 and "made by another recipe" in other.stderr
    assert len([x for x in other.stderr.splitlines() if "broken.png" not in x]) == 1


def test_ctrl_c_saves_and_exits_with_130(place: Path, tmp_path: Path) -> None:
    endless = SHORT.replace("pictures = 80", "pictures = 800000")
    (place / "endless.toml").write_text(endless, encoding="utf-8")
    words = [str(PROGRAM), "train", "endless.toml", "-o", str(tmp_path / "run"), "--save-every", "1"]
    with subprocess.Popen(
        words, cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 100
        while not (tmp_path / "run/vae.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), errors
    assert "Traceback" not in errors
    assert (tmp_path / "run/vae.pt").exists() and not list((tmp_path / "run").glob("*.tmp"))


def test_a_killed_run_goes_on_and_gives_the_same_weights_to_the_bit(place: Path, tmp_path: Path) -> None:
    """Killed in the transformer's stage while it writes checkpoints without a pause."""
    import torch

    words = ["train", "tiny.toml", "--save-every", "1", "--sample-every", "2"]
    with subprocess.Popen(
        [str(PROGRAM), *words, "-o", str(tmp_path / "killed")],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 100
        while not (tmp_path / "killed/transformer.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    for name in ("killed", "whole"):
        done = dit(*words, "-o", tmp_path / name, cwd=place)
        assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / name / "transformer.pt", weights_only=True) for name in ("killed", "whole")]
    for part in ("networks", "average"):
        assert states[0][part].keys() == states[1][part].keys()
        for key, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][key]), key
    assert states[0]["step"] == states[1]["step"] == 6
    assert not list((tmp_path / "killed").glob("*.part"))


def test_an_adapter_from_a_recipe_to_a_picture(place: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "ink.toml"
    recipe.write_text(
        f'name = "ink"\n[data]\nfolder = "{place / "pictures"}"\nsize = 64\n'
        '[adapter]\nmodel = "emoji"\nsamples = 8\nlearning_rate = 1e-2\n',
        encoding="utf-8",
    )
    done = dit(
        "train",
        recipe,
        "--adapter",
        "difffit",
        "-o",
        tmp_path / "run",
        "--save-every",
        "1",
        "--sample-every",
        "99",
        cwd=tmp_path,
    )
    path = tmp_path / "run/ink.safetensors"
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    assert "dit: adapter 2/2 (100%): loss " in done.stderr
    assert "broken.png: not an image" in done.stderr
    made = dit(
        "generate", "red circle", "-m", "emoji", "--steps", "2", "--lora", f"{path}:0.5", "-o", "x.png", cwd=tmp_path
    )
    assert (made.returncode, made.stdout.split()) == (0, ["x.png"]), made.stderr
    refused = dit("train", recipe, "--export", "x", cwd=tmp_path)
    assert refused.returncode == 2 and "--export is not available for adapters" in refused.stderr
    other = dit("train", "tiny.toml", "--adapter", "lora", "-o", "x", cwd=place)
    assert other.returncode == 2 and "--adapter: the recipe trains a model" in other.stderr


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_objectives_train_an_adapter_of_another_family(place: Path, tmp_path: Path, family: str) -> None:
    importlib.import_module(f"tests.support.{family}").pipeline(tmp_path / "model")
    (tmp_path / "ink.toml").write_text(
        f'name = "ink"\n[data]\nfolder = "{place / "pictures"}"\nsize = 32\n'
        '[adapter]\nmodel = "model"\nmethod = "lora:rank=2"\nsamples = 8\nlearning_rate = 1e-2\n',
        encoding="utf-8",
    )
    files = {}
    for text in ("", "immiscible", "repa"):
        more = ["--objective", text] if text else []
        done = dit("train", "ink.toml", "-o", f"run-{text}", "--save-every", "1", "--json", *more, cwd=tmp_path)
        path = f"run-{text}/ink.safetensors"
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0 and events[-1] == {"type": "done", "path": path}, done.stderr
        steps = [event for event in events if event["type"] == "step"]
        assert [event["step"] for event in steps] == [1, 2]
        parts = {"denoising", "repa alignment"} if text == "repa" else set()
        assert all(set(event.get("losses", {})) == parts for event in steps)
        files[text] = (tmp_path / path).read_bytes()
    assert len(set(files.values())) == 3
    words = ["generate", "x", "-m", "model", "--steps", "1", "--size", "32", "-o", "x.png"]
    made = dit(*words, "--lora", "run-repa/ink.safetensors", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    refused = dit("train", "ink.toml", "-o", "run-no", "--objective", "masking", cwd=tmp_path)
    assert refused.returncode == 7 and "masking: tokens can leave only where" in refused.stderr
    refused = dit("train", "ink.toml", "-o", "run-no", "--objective", "variance-expansion", cwd=tmp_path)
    assert refused.returncode == 2 and "it trains an autoencoder, and an adapter has none" in refused.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["gone.toml"], 4, "dit: gone.toml: cannot be read: No such file or directory; "),
        (["typo.toml"], 4, "[transformer]: unknown key 'widht'; did you mean 'width'?"),
        (["tiny.toml", "--data", "gone"], 4, "dit: gone: no such folder or zip; "),
        (["tiny.toml", "--data", "empty"], 4, "dit: empty: no image with a caption; "),
        (["tiny.toml", "--dtype", "int8"], 2, "dit: --dtype int8: not supported for training; "),
        (["tiny.toml", "--stage", "vae"], 2, "dit: --stage vae: unknown stage; "),
        (["tiny.toml", "--objective", "repo"], 2, "no method 'repo'; did you mean 'repa'?"),
        (["tiny.toml", "--objective", "sra:weight=-1"], 2, "weight=-1.0 is out of range; "),
        (["tiny.toml", "-o", "tiny.toml"], 4, "dit: -o tiny.toml is a file; give a folder"),
        (["tiny.toml", "--device", "cuda:77"], 7, "dit: --device cuda:77: not available here; "),
    ],
)
def test_bad_input_is_one_line(place: Path, words: list[str], code: int, says: str) -> None:
    (place / "empty").mkdir(exist_ok=True)
    (place / "typo.toml").write_text(SHORT.replace("width", "widht"), encoding="utf-8")
    output = [] if "-o" in words else ["-o", "unused"]
    done = dit("train", *words, *output, cwd=place)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_dry_run_says_what_would_be_done_and_makes_nothing(place: Path) -> None:
    done = dit("train", "tiny.toml", "-o", "dry", "--dry-run", "--device", "cpu", "--dtype", "float32", cwd=place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "dit: would train tiny in dry on cpu in float32" in done.stderr
    assert "16 images of 16 x 16 pixels; autoencoder 10 steps of 8 images, transformer 6 steps of 16" in done.stderr
    assert "M parameters; at least " in done.stderr and "broken.png: not an image" in done.stderr
    assert not (place / "dry").exists()


def test_the_plan_of_a_run_is_what_the_run_does(place: Path, tmp_path: Path) -> None:
    words = ["train", "tiny.toml", "-o", tmp_path / "run", "--device", "cpu", "--json"]
    dit(*words, "--stage", "autoencoder", "--max-steps", "4", cwd=place)
    done = dit(*words, "--dry-run", cwd=place)
    plan = [json.loads(line) for line in done.stdout.splitlines()][-1]
    assert plan["stages"]["autoencoder"] == {"steps": 10, "batch_size": 8, "done": 4}, done.stderr
    assert plan["stages"]["transformer"] == {"steps": 6, "batch_size": 16, "done": 0}
    made = dit(*words, cwd=place)
    last = [json.loads(line) for line in made.stdout.splitlines() if '"type": "step"' in line][-1]
    assert (last["stage"], last["steps"], last["seconds_left"]) == ("transformer", 6, 0)
    files = [tmp_path / "run" / part for part in ("pipeline/transformer", "pipeline/text_encoder", "vae")]
    shapes = [e["shape"] for folder in files for f in folder.glob("*.safetensors") for e in header(f).values()]
    words_found = json.loads((files[1] / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    lacking = 16 * (64 - words_found)  # rows of the embedding: few captions have fewer words than asked for
    assert plan["parameters"] == sum(math.prod(shape) for shape in shapes) + lacking
    assert plan["memory_bytes"] > 4 * 5 * plan["parameters"] / 2


def test_a_recipe_that_comes_with_dit_is_found_by_name(data: Path, tmp_path: Path) -> None:
    words = ["--data", data, "--dry-run", "--json"]
    plans = [dit("train", *more, *words, cwd=tmp_path) for more in (["emoji"], ["--recipe", "emoji"])]
    assert [done.returncode for done in plans] == [0, 0], plans[0].stderr
    assert plans[0].stdout == plans[1].stdout
    plan = json.loads(plans[0].stdout)
    assert (plan["name"], plan["images"], plan["size"]) == ("emoji", 16, 128)
    for words, code, says in (
        ([], 2, "no recipe was given; give one TOML file, or one of emoji, emoji-colour, emoji-small"),
        (["emoji", "--recipe", "emoji"], 2, "a recipe was given twice"),
        (["emojy"], 4, "emojy: no recipe of this name; did you mean 'emoji'?"),
        (["emoji", "--dry-run"], 4, "give --data FOLDER, or set DIT_DATA"),
    ):
        done = dit("train", *words, cwd=tmp_path, env={"DIT_DATA": ""})
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_objectives_are_listed_and_explained() -> None:
    done = dit("train", "x.toml", "--objective", "help")
    assert done.returncode == 0 and "interval-clustering" in done.stdout
    explained = dit("train", "x.toml", "--objective", "masking:help")
    assert "arXiv:2407.15811" in explained.stdout and "ratio=0.5" in explained.stdout
