"""Transformers in pieces: caches that skip blocks do on ONNX Runtime what they do in PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dit_tools.core.arrays import to_numpy
from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.models.backends.onnx_split import PIECES
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.export.preflight import ExportConfig, check_export
from tests.support import loop
from tests.support.exports import FAMILIES, picture, relative

Folder = Callable[[str], Path]
STACK = frozenset({"stack"})
CACHES = (
    "cg-taylor:threshold=0.3,warmup=2",
    "first-block:threshold=1e9,max_skips=2,order=1",
    "taylorseer:interval=3",
    "seacache:threshold=0.5",
    "magcache:calibration=flat",
)


def drawn(model: Any, cache: str, steps: int = 8) -> tuple[Any, dict[str, int]]:
    """Final latents of two prompts, numpy, and the run's counters."""
    words = ("1", "207") if model.family.name == "dit" else ("a red apple", "blue night by the sea")
    size = picture(model.family)
    plan = Plan.parse(
        steps,
        {
            "schedule": "native",
            "solver": model.family.facts.solver,
            "guidance": "cfg:scale=3.0",
            "noise": "philox",
            "cache": cache,
        },
    )
    shape = (2, *model.family.latent_shape(Size(*size)))
    start = model.to_array(np.random.default_rng(5).standard_normal(shape).astype(np.float32))
    times = plan.times(model, shape)
    run = RunState(times, plan.solver.calls(len(times) - 1))
    conditions = model.encode(ConditionRequest(words, ("", ""), Size(*size)))
    *_, last = loop.sample(model, conditions, start, plan, run=run)
    return to_numpy(last.x), dict(run.count)


@pytest.mark.parametrize("name", FAMILIES)
def test_caches_skip_the_same_blocks_to_the_same_latents(name: str, exports: Folder) -> None:
    folder = str(exports(name))
    ours, torch = load(folder, backend="onnx", needs=STACK), load(folder, backend="torch")
    plain, _ = drawn(torch, "none")
    for cache in CACHES:
        (latents, counted), (expected, wanted) = drawn(ours, cache), drawn(torch, cache)
        assert counted == wanted and counted["blocks skipped"] > 0, cache
        assert relative(latents, expected) < 1e-4, cache
        assert relative(expected, plain) > 1e-4, "the cache changes nothing, so nothing is proved"


@pytest.mark.parametrize("name", ["pixart", "sd3"])
def test_nothing_skipped_is_the_plain_run_bit_for_bit(name: str, exports: Folder) -> None:
    model = load(str(exports(name)), backend="onnx", needs=STACK)
    whole, _ = drawn(model, "none")
    same, counted = drawn(model, "first-block:threshold=0")
    again, _ = drawn(model, "none")
    assert "blocks skipped" not in counted
    assert np.array_equal(same, again), "a network in pieces is one network"
    assert relative(same, whole) < 1e-5, "and the one in one graph but for rounding"


def test_pieces_hold_their_blocks_and_read_the_weights_file(exports: Folder) -> None:
    folder = exports("pixart")
    graphs = {p: onnx.load(folder / f"transformer.{p}.onnx", load_external_data=False).graph for p in PIECES}
    held = {p: {i.name for i in graph.initializer} for p, graph in graphs.items()}
    blocks = {
        p: {n.partition("transformer_blocks.")[2].partition(".")[0] for n in names} - {""} for p, names in held.items()
    }
    assert blocks == {"embed": set(), "first": {"0"}, "rest": {"1", "2"}, "final": set()}
    places = {
        entry.value
        for graph in graphs.values()
        for i in graph.initializer
        for entry in i.external_data
        if entry.key == "location"
    }
    assert places == {"transformer/diffusion_pytorch_model.safetensors"}
    assert not list(folder.glob("transformer.whole*"))


def test_a_graph_in_one_piece_says_how_to_get_pieces(models: Folder, tmp_path: Path) -> None:
    from tests.support.exports import exported

    folder = str(exported(models("pixart"), tmp_path / "plain", parts=("transformer",)))
    with pytest.raises(UnsupportedError, match="needs stack.*dit export --split"):
        load(folder, backend="onnx", needs=STACK)
    model = load(folder, backend="onnx")
    assert model.network.offers == frozenset() and model.network.blocks() == []
    with pytest.raises(UnsupportedError, match="this backend has no stack.*dit export --split"):
        drawn(model, "first-block")


@pytest.mark.parametrize("blocks", ["", "one", "1", "99999999999"])
def test_pieces_that_say_nothing_of_their_blocks(blocks: str, exports: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(exports("pixart"), folder)
    path = folder / "transformer.embed.onnx"
    proto = onnx.load(path, load_external_data=False)
    for entry in list(proto.metadata_props):
        if entry.key == "blocks":
            entry.key, entry.value = ("blocks", blocks) if blocks else ("other", "3")
    onnx.save(proto, path)
    model = load(str(folder), backend="onnx", needs=STACK)
    with pytest.raises(ModelError, match="embed.onnx: says nothing of its blocks.*--split"):
        model.network.blocks()


def test_what_needs_modules_still_asks_for_torch(exports: Folder) -> None:
    with pytest.raises(UnsupportedError, match="needs blocks; use --backend torch"):
        load(str(exports("pixart")), backend="onnx", needs=frozenset({"blocks"}))


def test_what_cannot_be_split_is_said_before_work(models: Folder, tmp_path: Path) -> None:
    source = resolve(str(models("pixart")))
    with pytest.raises(UsageError, match="--split: it is the transformer"):
        check_export(source, ExportConfig(tmp_path / "out", parts=("vae",), split=True))
    config = tmp_path / "one/transformer/config.json"
    shutil.copytree(models("pixart"), tmp_path / "one")
    facts = json.loads(config.read_text()) | {"num_layers": 1}
    config.write_text(json.dumps(facts))
    with pytest.raises(UnsupportedError, match="one block is one piece"):
        check_export(resolve(str(tmp_path / "one")), ExportConfig(tmp_path / "out", split=True))


def test_the_built_in_model_skips_blocks_without_torch(tmp_path: Path) -> None:
    """The shipped pieces, through the command; --compare tells that something was skipped."""
    code = (
        "import sys\n"
        "from dit_cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    out = tmp_path / "apple.png"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "generate",
            "a red apple",
            "--steps",
            "8",
            "--json",
            "--cache",
            "first-block:threshold=1e9",
            "--compare",
            "-o",
            str(out),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    record = next(event["record"] for event in events if event["type"] == "item")
    assert record["backend"] == "onnx" and out.exists()
    assert 5 < record["compare"]["psnr"] < 60, "six of eight calls are one block"
