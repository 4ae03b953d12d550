"""What ``-m`` finds, and the one line that is printed when it finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub as hub
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from dit_tools.core.errors import ExitCode, ModelError, UnsupportedError
from dit_tools.models.loading import resolve as module
from dit_tools.models.loading.resolve import Resolved, builtin_names, pull, resolve, wanted

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def folder(root: Path, seed: int = 0) -> Path:
    """A folder in diffusers format with one part."""
    (root / "transformer").mkdir(parents=True)
    index = {"_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"]}
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "transformer/config.json").write_text('{"num_layers": 1}')
    weights = {"w": np.full(4, seed, np.float32)}
    save_file(weights, root / "transformer/diffusion_pytorch_model.safetensors")
    return root


@pytest.fixture
def builtin(tmp_path, monkeypatch):
    """Two built-in models of this test's own."""
    for name in ("emoji", "flowers"):
        folder(tmp_path / "builtin" / name)
        (tmp_path / "builtin" / name / "dit.json").write_text(json.dumps({"revision": f"r-{name}"}))
    monkeypatch.setattr(module, "BUILTIN", tmp_path / "builtin")
    return tmp_path / "builtin"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and a hub that cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    return tmp_path / "cache"


def snapshot(cache: Path, owner: str = "owner", name: str = "name") -> Path:
    """A hub model in the cache, as a download leaves it."""
    repo = cache / f"models--{owner}--{name}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    return folder(repo / "snapshots" / COMMIT)


def refused(reference: str, message: str, **options) -> str:
    with pytest.raises(ModelError, match=message) as caught:
        resolve(reference, **options)
    text = str(caught.value)
    assert caught.value.code == ExitCode.MODEL and "\n" not in text
    assert caught.value.hint, "an error names its remedy"
    return text


# built-in names, folders, files -----------------------------------------------------------------


def test_a_built_in_name_comes_first(builtin, tmp_path, monkeypatch):
    monkeypatch.chdir(folder(tmp_path / "emoji").parent)
    assert builtin_names() == ["emoji", "flowers"]
    assert resolve("emoji") == Resolved("builtin", builtin / "emoji", "emoji", "r-emoji")
    assert resolve("./emoji").kind == "folder"


def test_a_folder_is_named_by_itself_and_its_content(tmp_path):
    found = resolve(str(folder(tmp_path / "mine")))
    other = resolve(str(folder(tmp_path / "other", seed=1)))
    assert (found.kind, found.name, found.path) == ("folder", "mine", tmp_path / "mine")
    assert found.revision != other.revision
    assert resolve(str(tmp_path / "mine") + "/").revision == found.revision


def test_a_file_is_resolved_with_its_fingerprint(tmp_path):
    path = tmp_path / "tuned.v2.safetensors"
    save_file({"w": np.ones(3, np.float32)}, path)
    found = resolve(str(path))
    assert (found.kind, found.name, found.path) == ("file", "tuned.v2", path)
    assert len(found.revision) == 12


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder(tmp_path / "mine")
    assert resolve("~/mine").path == tmp_path / "mine"


def test_an_unknown_name_brings_the_nearest(builtin):
    assert "did you mean 'flowers'" in refused("flower", "flower: no such model")
    assert "dit models list" in refused("xyzzy", "no such model")
    refused("", "no such model")


def test_a_path_that_is_not_there_is_called_a_path(builtin):
    for reference in ("./emoji", "models/gone.safetensors", "gone.ckpt", "/no/such/folder", "~/gone"):
        assert "check the path" in refused(reference, "no such file or folder")


def test_a_folder_of_something_else_is_refused(tmp_path):
    folder(tmp_path / "model")
    refused(str(tmp_path), r"no model_index\.json")
    assert "the folder above" in refused(str(tmp_path / "model/transformer"), r"no model_index\.json")


def test_a_folder_with_code_of_its_own_is_refused(tmp_path):
    root = folder(tmp_path / "model")
    (root / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    refused(str(root), "code of its own")


def test_pickles_need_permission_and_other_formats_are_not_read(tmp_path):
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02.")
    assert "--allow-pickle" in refused(str(tmp_path / "old.ckpt"), "pickled weights")
    assert resolve(str(tmp_path / "old.ckpt"), allow_pickle=True).kind == "file"
    (tmp_path / "x.h5").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedError, match=r"\.h5 is not read"):
        resolve(str(tmp_path / "x.h5"))
    (tmp_path / "cut.safetensors").write_bytes(b"123")
    refused(str(tmp_path / "cut.safetensors"), "damaged")


# the hub ----------------------------------------------------------------------------------------


def test_a_cached_hub_model_needs_no_network(cache):
    where = snapshot(cache)
    for reference in ("owner/name", "owner/name@main", f"owner/name@{COMMIT}"):
        assert resolve(reference) == Resolved("hub", where, "owner/name", COMMIT)


def test_an_existing_folder_comes_before_the_hub(cache, tmp_path, monkeypatch):
    snapshot(cache)
    folder(tmp_path / "owner/name")
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name").kind == "folder"


def test_what_is_not_cached_and_cannot_be_reached_is_said_so(cache):
    snapshot(cache)
    for reference in ("owner/other", "owner/name@v2"):
        assert "connect, or give a folder" in refused(reference, "cannot be reached")


def test_a_download_that_was_cut_off_is_not_used(cache):
    (snapshot(cache) / "transformer/diffusion_pytorch_model.safetensors").unlink()
    refused("owner/name", "cannot be reached")


def test_a_damaged_file_in_the_cache_is_named(cache):
    weights = snapshot(cache) / "transformer/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused("owner/name", r"diffusion_pytorch_model\.safetensors.*damaged")


def response(status: int):
    return SimpleNamespace(status_code=status, headers={}, request=SimpleNamespace(url="u", method="GET"), text="")


@pytest.mark.parametrize(
    ("error", "status", "message", "remedy"),
    [
        ("GatedRepoError", 403, "accept terms", "hf auth login"),
        ("RepositoryNotFoundError", 401, "not on the hub, or private", "hf auth login"),
        ("RevisionNotFoundError", 404, "no such revision", "leave out"),
        ("HfHubHTTPError", 403, "access denied", "hf auth login"),
        ("HfHubHTTPError", 503, "answers 503", "later"),
    ],
)
def test_the_hubs_answers_become_one_line(error, status, message, remedy, cache, monkeypatch):
    kind = getattr(errors, error)
    raised = kind.__new__(kind)
    Exception.__init__(raised, "many\nlines")
    raised.response = response(status)

    def answer(*_, **__):
        raise raised

    monkeypatch.setattr(hub.HfApi, "model_info", answer)
    assert remedy in refused("owner/name", message)


def test_pull_fetches_the_parts_and_nothing_else(cache, tmp_path, monkeypatch):
    source = folder(tmp_path / "source")
    files = [
        "model_index.json",
        "transformer/config.json",
        "evil.py",
        "big.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
    ]
    asked = {}

    def info(self, name, revision, timeout):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, files=allow_patterns)
        return str(source)

    monkeypatch.setattr(hub.HfApi, "model_info", info)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(source / "model_index.json"))
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert pull("owner/name@v2") == source
    assert (asked["name"], asked["revision"]) == ("owner/name", "v2")
    assert sorted(asked["files"]) == sorted(f for f in files if f not in ("evil.py", "big.safetensors"))
    with pytest.raises(ModelError, match="not a hub id"):
        pull("emoji")


def test_one_set_of_weights_is_wanted():
    there = [
        "README.md",
        "model_index.json",
        "pipeline.py",
        "flux1-dev.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/my.py",
        "text_encoder/config.json",
        "text_encoder/pytorch_model.bin",
        "text_encoder/pytorch_model.fp16.bin",
        "text_encoder/onnx/model.safetensors",
        "tokenizer/spiece.model",
        "tokenizer/merges.txt",
        "tokenizer/chat_template.jinja",
        "other/config.json",
    ]
    parts = ["vae", "unet", "text_encoder", "tokenizer"]
    safe_only = wanted(there, parts, False)
    assert safe_only == [
        "README.md",
        "model_index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/config.json",
        "tokenizer/spiece.model",
        "tokenizer/merges.txt",
        "tokenizer/chat_template.jinja",
    ]
    assert set(wanted(there, parts, True)) - set(safe_only) == {"text_encoder/pytorch_model.bin"}


def test_resolving_imports_neither_torch_nor_numpy(tmp_path):
    folder(tmp_path / "mine")
    code = (
        "import sys; from dit_tools.models.loading.resolve import resolve; "
        f"resolve({str(tmp_path / 'mine')!r}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'diffusers')))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
