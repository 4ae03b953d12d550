"""Damaged and hostile weight files give one ModelError; sound ones are read."""

from __future__ import annotations

import json
import math
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from dit_tools.core.errors import ModelError
from dit_tools.models.loading import validation
from dit_tools.models.loading.config_limits import PARAMETER_LIMIT, check_config, parameters

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float16),
    "scalar": np.array(3, dtype=np.float32),
}


def sound(path: Path) -> Path:
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def written(path: Path, table, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header."""
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype="F32", shape=(1,), low=0, high=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [low, high]}


def folder(root: Path, *, own: str = "StableDiffusion3Pipeline") -> Path:
    """A folder in diffusers format with a transformer, a tokenizer and a scheduler."""
    index = {
        "_class_name": own,
        "_diffusers_version": "0.42.1",
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "image_encoder": [None, None],
        "force_zeros": True,
    }
    for part in ("transformer", "tokenizer", "scheduler"):
        (root / part).mkdir(parents=True)
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "transformer/config.json").write_text('{"num_layers": 2, "num_attention_heads": 2}')
    (root / "scheduler/scheduler_config.json").write_text("{}")
    sound(root / "transformer/diffusion_pytorch_model.safetensors")
    return root


def changed(root: Path, **parts) -> Path:
    """``folder(root)`` with another model_index.json."""
    index = json.loads((folder(root) / "model_index.json").read_text())
    (root / "model_index.json").write_text(json.dumps(index | parts))
    return root


# headers ----------------------------------------------------------------------------------------


def test_a_sound_file_is_described(tmp_path):
    header = validation.header(sound(tmp_path / "x.safetensors"))
    assert set(header) == set(TENSORS)
    assert header["a.weight"]["shape"] == [3, 4] and header["a.weight"]["dtype"] == "F32"
    assert validation.metadata(tmp_path / "x.safetensors") == {"format": "pt"}


@pytest.mark.parametrize(
    ("table", "data", "message"),
    [
        ({"a": entry()}, b"", "0 bytes"),
        ({"a": entry()}, bytes(9), "9 bytes"),
        ({"a": entry(high=8)}, bytes(8), "does not fill"),
        ({"a": entry(), "b": entry(low=2, high=6)}, bytes(6), "overlap"),
        ({"a": entry(), "b": entry(low=6, high=10)}, bytes(10), "gaps"),
        ({"a": entry(), "b": entry()}, bytes(4), "overlap"),
        ({"a": entry(dtype="F33")}, bytes(4), "unknown type"),
        ({"a": entry(dtype=["F32"])}, bytes(4), "unknown type"),
        ({"a": entry(shape=(-1,))}, bytes(4), "bad shape"),
        ({"a": entry(shape=(True,))}, bytes(4), "bad shape"),
        ({"a": entry(shape=(1.0,))}, bytes(4), "bad shape"),
        ({"a": entry(shape=(2**40, 2**40))}, bytes(4), "does not fill"),
        ({"a": entry(shape=(1,) * 99)}, bytes(4), "bad shape"),
        ({"a": entry(low=4, high=0)}, bytes(4), "does not fill"),
        ({"a": entry(low=-4, high=0)}, bytes(4), "bad shape"),
        ({"a": {"dtype": "F32"}}, bytes(4), "not described"),
        ({"a": 7}, bytes(4), "not described"),
        ({"__metadata__": {"a": 1}}, b"", "not texts"),
        ([1, 2], b"", "not a table"),
        (b"{'a': 1}", b"", "not JSON"),
        (b"\xff\xfe\xfd", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 9999 + b"]}}", b"", "not JSON"),
    ],
)
def test_a_wrong_header_is_named(table, data, message, tmp_path):
    path = written(tmp_path / "bad.safetensors", table, data)
    with pytest.raises(ModelError, match=rf"bad\.safetensors.*{message}"):
        validation.header(path)


@pytest.mark.parametrize("length", [0, 1, 3, 10**8 + 1, 2**63, 2**64 - 1])
def test_a_header_length_out_of_bounds_reads_nothing(length, tmp_path):
    path = written(tmp_path / "bad.safetensors", b"{}", length=length)
    with pytest.raises(ModelError, match="does not fit"):
        validation.header(path)


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x02\0\0\0\0\0\0\0"])
def test_a_file_without_header_is_damaged(content, tmp_path):
    (tmp_path / "short.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"short\.safetensors.*damaged"):
        validation.header(tmp_path / "short.safetensors")


def test_a_missing_file_and_a_folder_are_model_errors(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            validation.header(path)


def test_a_pickle_under_a_safetensors_name_is_called_one(tmp_path):
    for protocol in range(2, 6):
        (tmp_path / "p.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol))
        with pytest.raises(ModelError, match="pickle"):
            validation.header(tmp_path / "p.safetensors")
    with zipfile.ZipFile(tmp_path / "z.safetensors", "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(ModelError, match="pickle"):
        validation.header(tmp_path / "z.safetensors")


QUIET = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUIET
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_raise_nothing_but_model_errors(flips, tmp_path):
    content = bytearray(sound(tmp_path / "x.safetensors").read_bytes())
    for place, change in flips:
        content[place % len(content)] ^= change
    _reads_or_refuses(tmp_path / "flipped.safetensors", bytes(content))


@QUIET
@given(kept=st.integers(0, 10**6))
def test_every_truncation_is_refused(kept, tmp_path):
    content = sound(tmp_path / "x.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: kept % len(content)])
    with pytest.raises(ModelError):
        validation.header(path)


@QUIET
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes_raise_nothing_but_model_errors(content, framed, tmp_path):
    start = struct.pack("<Q", len(content)) if framed else b""
    _reads_or_refuses(tmp_path / "noise.safetensors", start + content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "X"]) | JSON,
        "shape": st.lists(st.integers(-1, 2**70), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


@QUIET
@given(table=st.dictionaries(st.text(max_size=9), ENTRY | JSON, max_size=4) | JSON, data=st.binary(max_size=40))
def test_any_json_header_raises_nothing_but_model_errors(table, data, tmp_path):
    written(tmp_path / "x.safetensors", table, data)
    _reads_or_refuses(tmp_path / "x.safetensors", (tmp_path / "x.safetensors").read_bytes())


def _reads_or_refuses(path: Path, content: bytes) -> None:
    """Refused with the file's name; or accepted, and then the library opens it as well."""
    path.write_bytes(content)
    try:
        header = validation.header(path)
    except ModelError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return
    if all(entry["dtype"] in ("F32", "F64", "I64", "F16", "I32") for entry in header.values()):
        loaded = load_file(path)
        assert {k: list(v.shape) for k, v in loaded.items()} == {k: entry["shape"] for k, entry in header.items()}


# folders ----------------------------------------------------------------------------------------


def test_a_sound_folder_passes(tmp_path):
    root = folder(tmp_path / "model")
    validation.check_folder(root)
    assert set(validation.components(root)) == {"transformer", "tokenizer", "scheduler"}
    assert validation.pipeline_class(root) == "StableDiffusion3Pipeline"


@pytest.mark.parametrize(
    "parts",
    [
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"_class_name": "../evil"},
        {"_class_name": None},
        {"transformer": ["my_transformer", "MyTransformer"]},
        {"transformer": ["os.path", "join"]},
        {"transformer": ["diffusers", "x.y"]},
        {"transformer": [7, "SD3Transformer2DModel"]},
    ],
)
def test_code_of_the_models_own_is_refused(parts, tmp_path):
    with pytest.raises(ModelError, match="code of its own"):
        validation.check_folder(changed(tmp_path / "model", **parts))


def test_a_python_file_beside_the_weights_is_refused(tmp_path):
    root = changed(tmp_path / "model", transformer=["transformers", "X"])
    (root / "transformer/transformers.py").write_text("")
    with pytest.raises(ModelError, match="code of its own"):
        validation.components(root)


def test_a_pipeline_package_of_diffusers_is_no_own_code(tmp_path):
    root = changed(tmp_path / "m", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert "safety_checker" in validation.components(root)


def test_a_part_cannot_lie_outside_the_folder(tmp_path):
    root = changed(tmp_path / "model", **{"../evil": ["diffusers", "X"]})
    with pytest.raises(ModelError, match="no part"):
        validation.components(root)


def test_pickled_weights_are_refused_unless_allowed(tmp_path):
    root = folder(tmp_path / "model")
    weights = root / "transformer/diffusion_pytorch_model.safetensors"
    (root / "transformer/diffusion_pytorch_model.bin").write_bytes(b"anything")
    validation.check_folder(root)  # the safetensors file is the one that is opened
    weights.unlink()
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.bin.*--allow-pickle"):
        validation.check_folder(root)
    validation.check_folder(root, allow_pickle=True)


def test_missing_weights_parts_and_indices_are_named(tmp_path):
    root = folder(tmp_path / "a")
    (root / "transformer/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="transformer: no weights"):
        validation.check_folder(root)
    validation.check_folder(root, without="transformer")
    (root / "tokenizer").rmdir()
    with pytest.raises(ModelError, match="tokenizer: missing"):
        validation.check_folder(root, without="transformer")
    (root / "model_index.json").write_text("[")
    with pytest.raises(ModelError, match=r"model_index\.json: not valid JSON"):
        validation.check_folder(root)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a.weight": "gone.safetensors"}}, "gone.safetensors: missing shard"),
        ({"weight_map": {"a.weight": "../../etc/x.safetensors"}}, "no shard's name"),
        ({"weight_map": {"a.weight": 7}}, "no shard's name"),
        ({"weight_map": {"other": "diffusion_pytorch_model.safetensors"}}, "no tensor 'other'"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_must_agree_with_its_shards(index, message, tmp_path):
    root = folder(tmp_path / "model")
    path = root / "transformer/diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        validation.check_folder(root)
    path.write_text(json.dumps({"weight_map": {"b": "diffusion_pytorch_model.safetensors"}}))
    validation.check_folder(root)


# configs ----------------------------------------------------------------------------------------

FLUX = {
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "num_layers": 19,
    "num_single_layers": 38,
    "joint_attention_dim": 4096,
    "in_channels": 64,
}


def test_the_estimate_is_of_the_right_order_for_large_models():
    assert 1e10 < parameters(FLUX) < 1e11
    t5 = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "vocab_size": 32128}
    qwen = {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "vocab_size": 152064,
        "num_attention_heads": 64,
    }
    for config in (t5, {"text_config": t5}):
        assert 4.7e9 < parameters(config) < PARAMETER_LIMIT
    assert 7e10 < parameters(qwen) < PARAMETER_LIMIT


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 10**9},
        {"attention_head_dim": 10**7},
        {"sample_size": 10**9},
        {"vocab_size": 10**15},
        {"block_out_channels": [10**7]},
        {"num_layers": 10**400},
        {"text_config": {"hidden_size": 10**8}},
        {"num_layers": -1},
        {"axes": [1], "dim": [10**9]},
    ],
)
def test_absurd_dimensions_are_refused(change):
    with pytest.raises(ModelError, match=r"x/config\.json"):
        check_config(Path("x/config.json"), FLUX | change)


@QUIET
@given(config=st.dictionaries(st.sampled_from([*FLUX, "block_out_channels", "vocab_size"]), JSON))
def test_any_config_raises_nothing_but_model_errors(config):
    try:
        check_config(Path("config.json"), config)
    except ModelError:
        return
    assert not parameters(config) > PARAMETER_LIMIT or math.isnan(parameters(config))


def test_a_huge_config_is_not_read(tmp_path):
    root = folder(tmp_path / "model")
    (root / "transformer/config.json").write_text(" " * 10_000_001)
    with pytest.raises(ModelError, match="larger than"):
        validation.check_folder(root)


# fingerprints -----------------------------------------------------------------------------------


def test_the_content_hash_names_the_content(tmp_path):
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    assert validation.content_hash(one) == validation.content_hash(two)
    assert len(validation.content_hash(one)) == 12
    before = validation.content_hash(two)
    tuned = TENSORS | {"b": TENSORS["b"] + 1}
    save_file(tuned, two / "transformer/diffusion_pytorch_model.safetensors", {"format": "pt"})
    after = validation.content_hash(two)
    assert after != before, "the same names, shapes and sizes, but other weights"
    (two / "transformer/config.json").write_text('{"num_layers": 3, "num_attention_heads": 2}')
    assert validation.content_hash(two) not in (before, after)
    (one / ".cache").mkdir()
    (one / ".cache/x").write_text("x")
    assert validation.content_hash(one) == before


def test_a_single_file_has_a_content_hash_too(tmp_path):
    one = sound(tmp_path / "x.safetensors")
    (tmp_path / "elsewhere").mkdir()
    assert validation.content_hash(one) == validation.content_hash(sound(tmp_path / "elsewhere/x.safetensors"))


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length, tmp_path):
    """The first two bytes of such a file are those of a pickle of protocol 2 to 5."""
    head = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + head + bytes(4))
    assert set(validation.header(tmp_path / "x.safetensors")) == {"a"}


def test_metadata_may_be_null(tmp_path):
    head = b'{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    assert set(validation.header(tmp_path / "x.safetensors")) == {"a"}
    assert validation.metadata(tmp_path / "x.safetensors") == {}
