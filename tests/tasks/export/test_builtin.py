"""A trained pipeline becomes a built-in model: half precision, five graphs, facts, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dit_tools.tasks.export import builtin
from tests.support import encoders, pixart

FACTS = {"family": "pixart", "size": 32, "max_tokens": 9, "default_steps": 4, "default_cfg": 2.0, "solver": "euler"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PixArt whose autoencoder has four channels, as the recipes train it."""
    from diffusers import AutoencoderKL

    pipe = pixart.pipeline()
    torch.manual_seed(1)
    config = dict(encoders.autoencoder(4).config)
    pipe.vae = AutoencoderKL.from_config(config, in_channels=4, out_channels=4, sample_size=32)
    folder = tmp_path_factory.mktemp("trained")
    pipe.save_pretrained(folder)
    return folder


def test_weights_in_half_precision_and_graphs_equal_to_torch(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    (out).mkdir()
    (out / "old").write_text("x")
    errors = builtin.export(trained, out, FACTS, {"README.md": "card"})
    assert set(errors) == {"transformer", "transformer.context", "text_encoder", "vae_decoder", "vae_encoder"}
    assert max(errors.values()) < 1e-3
    facts = json.loads((out / "dit.json").read_text())
    assert facts["name"] == "tiny" and FACTS.items() <= facts.items()
    listed = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"dit.json"}
    assert set(facts["files"]) == listed and not (out / "old").exists()
    assert "README.md" in listed
    texts = [path.read_text(encoding="utf-8") for path in out.rglob("*.json")]
    assert not any(str(trained) in text for text in texts)
    before = sum(path.stat().st_size for path in trained.rglob("*.safetensors"))
    after = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    assert after < 0.7 * before


def test_a_failure_keeps_the_model_that_is_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> float:
        raise RuntimeError("differs")

    monkeypatch.setattr(builtin, "_graph", broken)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/old").write_text("x")
    with pytest.raises(RuntimeError, match="differs"):
        builtin.export(trained, tmp_path / "tiny", FACTS)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["tiny", "tiny/old"]
