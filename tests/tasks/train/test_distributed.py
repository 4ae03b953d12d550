"""Two processes train as one: the same losses and weights as a single one, up to rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dit_tools.core.errors import UsageError
from dit_tools.tasks.train import checkpoint, plot
from dit_tools.tasks.train.distributed import Team
from tests.support import sd3
from tests.support.program import PROGRAM, environment
from tests.tasks.train.conftest import TEXT, draw_pictures

SHORT = (
    TEXT.replace("pictures = 480", "pictures = 32")
    .replace("samples = 320", "samples = 64")
    .replace("latent_channels = 4", "latent_channels = 4\nlatent_noise = 0.0")
    .replace("[transformer]", '[transformer]\nobjectives = ["immiscible"]')
)
# Muon and AdamW divide by the size of gradients: what is rounded differently near zero may move by
# a whole step, so weights are compared on average.


def start(place: Path, rank: int, size: int, port: int, recipe: str = "tiny.toml") -> subprocess.Popen[str]:
    words = [
        str(PROGRAM),
        "train",
        recipe,
        "-o",
        f"runs/{size}",
        "--dtype",
        "float32",
        "--save-every",
        "1",
        "--device",
        "cpu",
        "--sample-every",
        "99",
    ]
    own = (
        {}
        if size == 1
        else {
            "WORLD_SIZE": str(size),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    )
    return subprocess.Popen(
        words,
        cwd=place,
        env=environment({**own, "OMP_NUM_THREADS": "1"}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def train_alone_and_in_two(place: Path, recipe: str) -> list[tuple[str, str]]:
    """Train once in one process and once in two; what each wrote to stdout and stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [start(place, 0, 1, 0, recipe), *(start(place, rank, 2, port, recipe) for rank in range(2))]
    told = [process.communicate(timeout=600) for process in running]
    assert [p.returncode for p in running] == [0, 0, 0], told
    return told


def test_an_adapter_in_two_processes_equals_one(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 8)
    sd3.pipeline(tmp_path / "model")
    (tmp_path / "ink.toml").write_text(
        'name = "ink"\n[data]\nfolder = "pictures"\nsize = 32\n[adapter]\nmodel = "model"\nmethod = "lora:rank=2"\n'
        'samples = 16\nlearning_rate = 1e-2\nema_decay = 0.5\nobjectives = ["immiscible", "repa"]\n',
        encoding="utf-8",
    )
    told = train_alone_and_in_two(tmp_path, "ink.toml")
    assert [out for out, _ in told] == ["runs/1/ink.safetensors\n", "runs/2/ink.safetensors\n", ""]
    assert told[2][1] == ""
    one, two = (load_file(tmp_path / f"runs/{size}/ink.safetensors") for size in (1, 2))
    apart = sum((one[name] - two[name]).abs().sum().item() for name in one)
    assert apart < 0.02 * sum(tensor.abs().sum().item() for tensor in one.values())
    losses = [[row["loss"] for row in plot.read_rows(tmp_path / f"runs/{size}")["adapter"]] for size in (1, 2)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=5e-3)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures")
    (tmp_path / "tiny.toml").write_text(SHORT, encoding="utf-8")
    told = train_alone_and_in_two(tmp_path, "tiny.toml")
    assert [out for out, _ in told] == ["runs/1/pipeline\n", "runs/2/pipeline\n", ""]
    assert told[2][1] == ""  # the second process is silent

    logs = [plot.read_rows(tmp_path / f"runs/{size}") for size in (1, 2)]
    for stage, count in (("autoencoder", 2), ("transformer", 4)):
        losses = [[row["loss"] for row in log[stage]] for log in logs]
        assert len(losses[0]) == count
        np.testing.assert_allclose(losses[0], losses[1], rtol=5e-3)
    states = [checkpoint.load_checkpoint(tmp_path / f"runs/{size}/transformer.pt") for size in (1, 2)]
    apart, size = 0.0, 0.0
    for name, tensor in states[0]["networks"].items():  # type: ignore[index]
        if tensor.is_floating_point():
            apart += (tensor - states[1]["networks"][name]).abs().sum().item()  # type: ignore
            size += tensor.abs().sum().item()
    assert apart < 0.01 * size
    lines = (tmp_path / "runs/2/log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 1, 2, 3, 4]


def test_alone_nothing_changes_and_shares_make_up_the_batch() -> None:
    alone, batch = Team(), torch.arange(8)
    assert alone.share(batch) is batch and alone.leads and alone.any(True)
    parts = [Team(rank, 4).share(batch) for rank in range(4)]
    assert sorted(torch.cat(parts).tolist()) == list(range(8)) and len({len(p) for p in parts}) == 1
    alone.average([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(UsageError, match=r"\[transformer\]: batch_size 6 on 4 processes; give a"):
        Team(0, 4).check(6, "[transformer]")
    assert "WORLD_SIZE" not in os.environ and sys.executable
