"""``dit quantize`` as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import pixart
from tests.support.loading import WEIGHTS, copy
from tests.support.program import dit, python


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "model"
    pixart.pipeline(folder)
    return folder


def test_a_folder_that_generate_runs(model: Path, tmp_path: Path) -> None:
    done = dit(
        "quantize",
        "-m",
        model,
        "-o",
        "out",
        "--scheme",
        "rtn:bits=4,group=8",
        "--prompts",
        "2",
        "--steps",
        "2",
        "--keep",
        "to_q",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].split() == ["layer", "layout", "n", "MB", "SNR", "dB"]
    assert any(
        line.startswith("transformer_blocks.*.attn1.to_k  ") and "int4 g8" in line and line.split()[3] == "3"
        for line in lines
    )
    assert any("attn1.to_q" in line and "F32" in line for line in lines)
    assert lines[-3].startswith("images: PSNR ") and "2 prompts, 2 steps" in lines[-3]
    facts = json.loads((tmp_path / "out/quantize.json").read_text())
    assert facts["verdict"]["psnr"] > 15 and facts["keep"] == ["to_q"]

    made = dit(
        "generate", "a red apple", "-m", "out", "-o", "apple.png", "--steps", "2", "--device", "cpu", cwd=tmp_path
    )
    assert (made.returncode, made.stdout) == (0, "apple.png\n"), made.stderr

    again = dit("quantize", "-m", model, "-o", "out", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (4, "")
    assert again.stderr == "dit: -o out: exists; add --overwrite, or choose another folder\n"
    twice = dit("quantize", "-m", "out", "-o", "new", cwd=tmp_path)
    assert (twice.returncode, twice.stdout) == (7, "")
    assert twice.stderr == ("dit: --model out: its transformer is quantized already; give the plain model\n")
    exported = dit("export", "-m", "out", "-o", "new", cwd=tmp_path)
    assert exported.returncode == 7 and "quantized" in exported.stderr


def test_graphs_of_the_built_in_model_which_ships_int8_ones(tmp_path: Path) -> None:
    done = dit(
        "quantize", "-m", "emoji", "-o", "out", "--target", "onnx", "--prompts", "1", "--steps", "2", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert {path.name for path in (tmp_path / "out").glob("transformer*.onnx")} == {
        "transformer.onnx",
        "transformer.context.onnx",
    }
    made = dit("generate", "a red apple", "-m", "out", "--steps", "2", "-o", "a.png", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "a.png\n"), made.stderr


def test_json_and_bits_by_sensitivity(model: Path, tmp_path: Path) -> None:
    done = dit(
        "quantize",
        "-m",
        model,
        "-o",
        tmp_path / "out",
        "--max-loss",
        "3dB",
        "--prompts",
        "1",
        "--calibration",
        "1",
        "--steps",
        "2",
        "--scheme",
        "rtn:group=8",
        "--json",
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds.count("sensitivity") > 20 and kinds[-1] == "done"
    layouts = {event["layout"] for event in events if event["type"] == "layer"}
    assert {"int2 g8"} <= layouts
    assert events[-1]["verdict"]["loss"] < 4.0


def test_the_plan_is_the_size(model: Path, tmp_path: Path) -> None:
    words = ("quantize", "-m", model, "--scheme", "rtn:bits=3,group=8", "--json")
    plan = dit(*words, "--dry-run")
    assert (plan.returncode, plan.stderr) == (0, "")
    *layers, total = map(json.loads, plan.stdout.splitlines())
    assert len(layers) > 30 and total["type"] == "plan"
    done = dit(*words, "-o", tmp_path / "out", "--prompts", "0")
    end = json.loads(done.stdout.splitlines()[-1])
    assert (end["bytes"], end["ratio"]) == (total["bytes"], total["ratio"])


BAD = [
    (("--scheme", "rtm"), 2, "dit: --scheme: no method 'rtm'; did you mean 'rtn'?"),
    (("--scheme", "rtn:bits=1"), 2, "dit: --scheme rtn: bits=1 is out of range; give"),
    (("--scheme", "fp8", "--max-loss", "1dB"), 7, "dit: --max-loss: --scheme fp8 has one number"),
    (("--max-loss", "much"), 2, "dit: --max-loss much: not a loss; give dB above 0"),
    (("--keep", "("), 2, "dit: --keep (: missing ), unterminated subpattern"),
    (("-o", "no/such"), 4, "dit: -o no/such: its folder does not exist; create it first"),
    (("-m", "no/such/model"), 5, "dit: --model no/such/model: no such file or folder; check the"),
    (("--device", "cuda"), 7, "dit: --device cuda: PyTorch sees no such GPU; use --device cpu"),
    (
        ("--target", "onnx:form=int4,provider=tensorrt"),
        7,
        "dit: --target onnx: form=int4 cannot run on tensorrt, it has no MatMulNBits",
    ),
    (
        ("--target", "onnx", "--max-loss", "1dB"),
        7,
        "dit: --max-loss: --target onnx has one number of bits; use --target folder",
    ),
    (
        ("--target", "onnx", "--scheme", "rtn"),
        2,
        "dit: --scheme rtn: form=dynamic of --target onnx is a scheme of its own; leave it out",
    ),
    (
        ("--target", "gguf:type=Q5_0", "--scheme", "q-diffusion"),
        7,
        "dit: --scheme q-diffusion: a GGUF file of type Q5_0 cannot hold it; leave it out",
    ),
    (("--prompts", "-1"), 2, "dit quantize: --prompts: out of range; give at least 0"),
]


@pytest.mark.parametrize("arguments, code, message", BAD, ids=[" ".join(a) for a, *_ in BAD])
def test_bad_requests(arguments: tuple[str, ...], code: int, message: str, model: Path, tmp_path: Path) -> None:
    done = dit("quantize", "-m", model, "-o", "out", *arguments, cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert list(tmp_path.iterdir()) == []


def test_without_an_output_there_is_nothing_to_write(model: Path) -> None:
    done = dit("quantize", "-m", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dit: -o is missing; name a new folder, or add --dry-run\n"


# damage -----------------------------------------------------------------------------------------


def refused(code: int, message: str, *arguments: str | Path, cwd: Path, program=dit) -> None:
    """One line, that exit code, and nothing left behind."""
    before = sorted(cwd.iterdir())
    done = program("quantize", "-o", "new", "--steps", "1", *arguments, cwd=cwd)
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert sorted(cwd.iterdir()) == before


def damaged(model: Path, tmp_path: Path, change) -> Path:
    root = copy(model, tmp_path / "model")
    tensors = load_file(root / WEIGHTS)
    change(tensors)
    save_file(tensors, root / WEIGHTS, {"format": "pt"})
    return root


@pytest.mark.parametrize("prompts", ["1", "0"])
def test_nan_in_calibration(prompts: str, model: Path, tmp_path: Path) -> None:
    """With the network in memory, and with weights read as they are used."""
    name = "caption_projection.linear_1.bias"
    root = damaged(model, tmp_path, lambda tensors: tensors[name].fill_(torch.nan))
    words = ("-m", root, "--scheme", "vidit-q", "--calibration", "1", "--prompts", prompts)
    refused(5, "NaN", *words, cwd=tmp_path)


def test_layers_that_the_network_has_not(model: Path, tmp_path: Path) -> None:
    root = damaged(model, tmp_path, lambda tensors: tensors.update(expert=torch.ones(4, 4)))
    message = "expert is not a tensor of the network as diffusers has it now; load the model with"
    refused(7, message, "-m", root, cwd=tmp_path)


def test_torchao_that_is_not_there(model: Path, tmp_path: Path) -> None:
    def without(*arguments: str | Path, cwd: Path):
        code = "import sys; sys.modules['torchao'] = None;from dit_cli.main import main; main(sys.argv[1:])"
        return python(code, *map(str, arguments), cwd=cwd)

    for more in ((), ("--dry-run",)):
        words = ("-m", model, "--target", "torchao", *more)
        refused(7, "--target torchao: it cannot be used", *words, cwd=tmp_path, program=without)


def test_models_without_layers_that_can_be_packed(tmp_path: Path) -> None:
    from tests.support import stable_diffusion

    stable_diffusion.pipeline(tmp_path / "unet")
    message = "--model unet: it has no transformer of diffusers; give another model"
    refused(7, message, "-m", tmp_path / "unet", cwd=tmp_path)


def test_a_disk_that_fills_up_while_it_writes(model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: both are errors of a write."""

    def limited(*arguments: str | Path, cwd: Path):
        code = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000));"
            "from dit_cli.main import main; main(sys.argv[1:])"
        )
        return python(code, *map(str, arguments), cwd=cwd)

    message = "dit: new: cannot be written: the file is larger than this system allows"
    refused(4, message, "-m", model, "--prompts", "0", cwd=tmp_path, program=limited)


def test_graphs_and_gguf_are_quantized_already(model: Path, tmp_path: Path) -> None:
    for target in ("onnx:form=fp16", "gguf"):
        done = dit(
            "quantize",
            "-m",
            model,
            "-o",
            "out",
            "--target",
            target,
            "--prompts",
            "0",
            "--overwrite",
            "-q",
            cwd=tmp_path,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "")
        made = dit("generate", "a red apple", "-m", "out", "-o", "a.png", "--steps", "1", "--overwrite", cwd=tmp_path)
        assert (made.returncode, made.stdout) == (0, "a.png\n"), made.stderr
        message = "dit: --model out: its transformer is quantized already; give the plain model\n"
        refused(7, message, "-m", "out", cwd=tmp_path)
