"""``dit models`` on a made-up built-in model and a made-up hub cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.hub import hub
from tests.support.program import dit, python

WITH_BUILTIN = """
import sys
from pathlib import Path
from dit_tools.models.loading import resolve
from dit_cli.main import main
resolve.BUILTIN = Path(sys.argv[1])
main(sys.argv[2:])
"""
FACTS = {
    "name": "tiny",
    "title": "A tiny model",
    "family": "pixart",
    "size": 8,
    "default_steps": 4,
    "default_cfg": 2.0,
    "solver": "euler",
    "schedule": "native",
    "alpha": False,
    "licence": "MIT",
    "revision": "abc",
}
CONTENT = {
    "transformer/config.json": b'{"a": 1}',
    "transformer.onnx": b"graph" * 100,
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n\nThe card.\n",
}


@pytest.fixture
def builtin(tmp_path: Path) -> Path:
    """A folder of built-in models with one in it."""
    folder = tmp_path / "builtin/tiny"
    files = {}
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "dit.json").write_text(json.dumps(FACTS | {"files": files}))
    return folder.parent


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub cache with one pipeline: files named by their hash, and links to them."""
    repo = tmp_path / "hub/models--some--pipe"
    snapshot = repo / "snapshots/0123abc"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("0123abc")
    for name, content in {
        "model_index.json": b'{"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"]}',
        "vae/config.json": b"{}",
        "README.md": b"card of the hub",
    }.items():
        short = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        _link(snapshot / name, repo / "blobs" / short, content)
    weights = (2).to_bytes(8, "little") + b"{}"
    weights_file = snapshot / "vae/diffusion_pytorch_model.safetensors"
    _link(weights_file, repo / "blobs" / hashlib.sha256(weights).hexdigest(), weights)
    return tmp_path / "hub"


def _link(path: Path, blob: Path, content: bytes) -> None:
    blob.write_bytes(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(blob)


def models(builtin: Path, *arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess:
    env = {"DIT_CACHE": str(cache or builtin.parent / "nothing")}
    return python(WITH_BUILTIN, str(builtin), "models", *arguments, env=env)


def test_list_is_the_default_and_shows_sizes(builtin: Path) -> None:
    done = models(builtin)
    assert done.returncode == 0 and done.stderr == ""
    size = sum(path.stat().st_size for path in builtin.rglob("*") if path.is_file())
    assert done.stdout == (
        f"built in\n  tiny  {size / 1000:>5.1f} kB  A tiny model\n"
        "nothing in the hub's cache; 'dit models pull OWNER/NAME' fetches a model\n"
    )
    assert models(builtin, "list").stdout == done.stdout


def test_list_as_json_with_a_hub_model(builtin: Path, cache: Path) -> None:
    done = models(builtin, "--json", cache=cache)
    tiny, hub = (json.loads(line) for line in done.stdout.splitlines())
    assert tiny["name"] == "tiny" and tiny["kind"] == "builtin" and tiny["licence"] == "MIT"
    assert tiny["path"] == str(builtin / "tiny") and "files" not in tiny
    assert hub["name"] == "some/pipe" and hub["kind"] == "hub" and hub["revision"] == "0123abc"
    assert hub["bytes"] > 0


def test_show(builtin: Path, cache: Path) -> None:
    text = models(builtin, "show", "tiny").stdout
    for line in ("title:         A tiny model", "default steps: 4", "alpha:         no", "licence:       MIT"):
        assert line in text.splitlines()
    assert text.endswith("\n# Tiny\n\nThe card.\n") and "license: mit" not in text
    made = json.loads(models(builtin, "show", "tiny", "--json").stdout)
    assert made["card"] == "# Tiny\n\nThe card." and made["default_cfg"] == 2.0
    assert "card of the hub" in models(builtin, "show", "some/pipe", cache=cache).stdout
    assert "A tiny model" in models(builtin, "show", str(builtin / "tiny")).stdout


def test_verify(builtin: Path) -> None:
    done = models(builtin, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "tiny: 3 files are intact\n", "")
    assert models(builtin, "verify", "-q").stdout == ""


def test_verify_finds_damaged_and_missing_files(builtin: Path) -> None:
    graph = builtin / "tiny/transformer.onnx"
    graph.write_bytes(b"Graph" + graph.read_bytes()[5:])  # the same size
    (builtin / "tiny/README.md").unlink()
    done = models(builtin, "verify", "tiny")
    assert done.returncode == 5
    assert done.stdout == ("tiny: 1 files are intact\ntiny: damaged transformer.onnx\ntiny: missing README.md\n")
    assert done.stderr == "dit: damaged: tiny; reinstall dit\n"
    made = json.loads(models(builtin, "verify", "--json").stdout)
    assert made == {"name": "tiny", "ok": False, "files": 1, "damaged": ["transformer.onnx"], "missing": ["README.md"]}


def test_verify_of_the_hub_cache(builtin: Path, cache: Path) -> None:
    assert models(builtin, "verify", "some/pipe", cache=cache).stdout == ("some/pipe: 4 files are intact\n")
    card = cache / "models--some--pipe/snapshots/0123abc/README.md"
    card.resolve().write_bytes(b"Card of the hub")
    done = models(builtin, "verify", "some/pipe", cache=cache)
    assert done.returncode == 5 and "some/pipe: damaged README.md\n" in done.stdout
    assert done.stderr == "dit: damaged: some/pipe; run 'dit models pull some/pipe'\n"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"files": 3}', '{"files": {"../x": {}}}', '{"files": {"a": {"sha256": 1}}}']
)
def test_records_that_make_no_sense(builtin: Path, content: str) -> None:
    (builtin / "tiny/dit.json").write_text(content)
    done = models(builtin, "verify", "tiny")
    assert done.returncode == 5 and done.stderr.count("\n") == 1
    assert "dit.json" in done.stderr and "Traceback" not in done.stderr


def test_names_that_are_not_there(builtin: Path, tmp_path: Path) -> None:
    done = models(builtin, "show", "tny")
    assert (done.returncode, done.stderr) == (5, "dit: no model 'tny'; did you mean 'tiny'?\n")
    done = models(builtin, "verify", "some/pipe")
    line = "dit: some/pipe: not on this machine; run 'dit models pull some/pipe'\n"
    assert (done.returncode, done.stdout, done.stderr) == (5, "", line)
    (tmp_path / "empty").mkdir()
    done = models(builtin, "verify", str(tmp_path / "empty"))
    assert done.returncode == 5 and done.stderr.count("\n") == 1


def test_pull_without_a_network() -> None:
    for env in ({"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = dit("models", "pull", "some/pipe", env=env)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith("dit: some/pipe: not on this machine, and the hub cannot be")
        assert done.stderr.count("\n") == 1
    done = dit("models", "pull", "no hub id")
    assert done.returncode == 5 and "give OWNER/NAME" in done.stderr


def test_the_models_that_ship_are_whole() -> None:
    done = dit("models", "verify")
    assert done.returncode == 0, done.stdout


REPOSITORY = {
    "model_index.json": b'{"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"]}',
    "README.md": b"card",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "vae/diffusion_pytorch_model.bin": b"PK\x03\x04",
    "vae/model.py": b"import os",
    "all-in-one.safetensors": b"x",
}


def test_pull_fetches_what_the_index_names_and_nothing_that_can_run(tmp_path: Path) -> None:
    with hub("some/pipe", REPOSITORY) as (address, fetched):
        env = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "DIT_CACHE": str(tmp_path / "c")}
        done = dit("models", "pull", "some/pipe", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        folder = Path(done.stdout.strip())
        assert folder.is_relative_to(tmp_path / "c")
        assert sorted(set(fetched)) == [
            "README.md",
            "model_index.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ]
        assert (folder / "README.md").read_bytes() == b"card"
        gone = dit("models", "pull", "some/other", env=env)
        assert gone.returncode == 5 and gone.stderr.startswith("dit: some/other: not on the hub")
    offline = env | {"HF_HUB_OFFLINE": "1"}
    assert "some/pipe" in dit("models", env=offline).stdout
    whole = dit("models", "verify", "some/pipe", env=offline)
    assert (whole.returncode, whole.stdout) == (0, "some/pipe: 4 files are intact\n")


def test_pull_refuses_a_repository_that_has_only_pickles(tmp_path: Path) -> None:
    files = {k: v for k, v in REPOSITORY.items() if not k.endswith(".safetensors")}
    with hub("some/pipe", files) as (address, fetched):
        env = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "DIT_CACHE": str(tmp_path / "c")}
        done = dit("models", "pull", "some/pipe", env=env)
        assert (done.returncode, done.stdout) == (5, "") and "vae" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not any(name.endswith((".bin", ".py")) for name in fetched)
