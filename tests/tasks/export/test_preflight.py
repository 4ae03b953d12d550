"""What cannot be exported is said before any weight is read and anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dit_tools.core.errors import DitError, MemoryLimitError, UnsupportedError, UsageError
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.export import preflight
from dit_tools.tasks.export.preflight import ExportConfig, check_export
from tests.support.loading import copy

Folder = Callable[[str], Path]


def parts_of(folder: Path, tmp_path: Path, **wanted: Any) -> tuple[str, ...]:
    return check_export(resolve(str(folder)), ExportConfig(tmp_path / "out", **wanted))[0]


def refused(folder: Path, tmp_path: Path, message: str, kind: type[DitError], **wanted: Any) -> None:
    with pytest.raises(kind, match=message) as caught:
        parts_of(folder, tmp_path, **wanted)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_parts_by_default(models: Folder, tmp_path: Path) -> None:
    assert parts_of(models("sd3"), tmp_path) == ("transformer", "vae")
    shipped = copy(models("pixart"), tmp_path / "shipped")
    (shipped / "dit.json").write_text("{}")
    assert parts_of(shipped, tmp_path) == ("transformer", "text_encoder", "vae")


def test_parts_come_in_one_order(models: Folder, tmp_path: Path) -> None:
    asked = ("vae", "text_encoder", "transformer")
    assert parts_of(models("pixart"), tmp_path, parts=asked) == preflight.PARTS


def test_unknown_part_and_opset(models: Folder, tmp_path: Path) -> None:
    bad = ("transfomer",)
    refused(models("sd3"), tmp_path, "did you mean 'transformer'", UsageError, parts=bad)
    refused(models("sd3"), tmp_path, "--opset 21.*17 to 20", UsageError, opset=21)
    refused(models("sd3"), tmp_path, "--opset 16", UsageError, opset=16)


def test_int8_is_of_the_transformer(models: Folder, tmp_path: Path) -> None:
    refused(models("sd3"), tmp_path, "--int8: .*add it", UsageError, parts=("vae",), int8=True)


def test_text_encoders_stay_in_torch(models: Folder, tmp_path: Path) -> None:
    message = "CLIPTextModelWithProjection stays in torch; give --parts transformer,vae"
    refused(models("sd3"), tmp_path, message, UnsupportedError, parts=("text_encoder",))
    source = copy(models("pixart"), tmp_path / "slow")
    (source / "tokenizer/tokenizer.json").unlink()
    refused(source, tmp_path, "no tokenizer.json", UnsupportedError, parts=("text_encoder",))


def edited(folder: Path, file: str, **changes: Any) -> Path:
    table = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps(table))
    return folder


def test_other_pipelines_are_named(models: Folder, tmp_path: Path) -> None:
    other = copy(models("sd3"), tmp_path / "other")
    edited(other, "model_index.json", _class_name="StableDiffusionPipeline")
    refused(other, tmp_path, "StableDiffusionPipeline cannot.*SanaPipeline", UnsupportedError)


def test_quantized_weights_are_refused(models: Folder, tmp_path: Path) -> None:
    other = copy(models("sd3"), tmp_path / "other")
    edited(other, "transformer/config.json", quantization_config={"quant_method": "torchao"})
    refused(other, tmp_path, "quantized", UnsupportedError)


def test_unknown_autoencoder(models: Folder, tmp_path: Path) -> None:
    other = copy(models("sd3"), tmp_path / "other")
    edited(other, "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    refused(other, tmp_path, "AutoencoderTiny cannot be", UnsupportedError, parts=("vae",))
    assert parts_of(other, tmp_path) == ("transformer",)


def test_untraceable_variant(models: Folder, tmp_path: Path) -> None:
    other = copy(models("sana"), tmp_path / "other")
    edited(other, "transformer/config.json", guidance_embeds=True)
    refused(other, tmp_path, "cannot trace models with guidance_embeds", UnsupportedError)


def test_memory(models: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, parts = models("sd3"), ("transformer",)
    numbers = preflight._count(folder / "transformer")

    def have(total: int) -> None:
        table = {"SC_PHYS_PAGES": total, "SC_PAGE_SIZE": 1}
        monkeypatch.setattr(preflight.os, "sysconf", table.__getitem__)

    have(8 * numbers - 1)
    refused(folder, tmp_path, "--no-check halves it", MemoryLimitError, parts=parts)
    assert parts_of(folder, tmp_path, parts=parts, check=False) == parts
    have(8 * numbers)
    assert parts_of(folder, tmp_path, parts=parts) == parts
    have(4 * numbers - 1)
    refused(folder, tmp_path, "more memory", MemoryLimitError, parts=parts, check=False)


def test_numbers_are_those_of_the_model(models: Folder, pipes: Any) -> None:
    expected = sum(tensor.numel() for tensor in pipes("dit").transformer.state_dict().values())
    assert preflight._count(models("dit") / "transformer") == expected
