"""The figures of the built-in model's card: does it draw what was asked for, and is it its own?

    python benchmarks/model_card.py [--model emoji] [--pictures 300] [--json]

Reads the training data ($DIT_DATA). Concepts are drawn at random, seed 0, from
all groups; the model is asked for each name once, default settings. Real images of the same
concepts give what the numbers can reach:

retrieval     own name nearest among 100, in %, of generated and of real images
frechet       judge features, generated against real; floor: real against other real images
nearest       PSNR to the nearest training image; next to it that of a style not trained on (Noto)
binding       attribute on the right thing, in %, for the pairs of binding.txt, which no training
              image shows; next to it that of real images whose name is a colour and a thing
autoencoder   PSNR of real images through the model's autoencoder
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dit_tools.core import spec
from dit_tools.methods.metrics._colours import COLOURS
from dit_tools.models.loading.load import load
from dit_tools.tasks import evaluate as library
from dit_tools.tasks.train import dataset
from dit_tools.tasks.train.recipe import Data

CAPTIONS = "emoji/captions.jsonl"
STYLES = ("fluent3d", "fluentflat")  # what the model was trained on
OTHER = "noto"


def real(styles: tuple[str, ...], size: int) -> tuple[np.ndarray, list[str]]:
    """Images (N, 4, size, size) and names."""
    data = Data(CAPTIONS, styles, size, {}, {}, {})
    found, captions = dataset.read_dataset(data, skin_tones=False)
    return found, [caption.name for caption in captions]


def write(folder: Path, found: np.ndarray, names: Sequence[str]) -> list[Path]:
    """The images with straight alpha as files, with their names for ``read_prompts``."""
    folder.mkdir()
    lines, paths = [], []
    for i, (image, name) in enumerate(zip(found, names, strict=True)):
        path = folder / f"{i:04}.png"
        Image.fromarray(straight(image), "RGBA").save(path)
        lines.append(json.dumps({"file": path.name, "prompt": name}))
        paths.append(path)
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return paths


def straight(picture: np.ndarray) -> np.ndarray:
    """Bytes (S, S, 4) with straight alpha, from colour over white and opacity (4, S, S)."""
    levels = picture.transpose(1, 2, 0) / 255
    colour, opacity = levels[..., :3], levels[..., 3:]
    levels[..., :3] = np.where(opacity > 0, (colour - 1 + opacity) / np.maximum(opacity, 1e-3), 1)
    return np.rint(levels.clip(0, 1) * 255).astype(np.uint8)


def generate(model: str, names: Sequence[str], folder: Path, scratch: Path) -> list[Path]:
    """One image a name by the installed ``dit generate``."""
    prompts = scratch / "names.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": name}) for name in names), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "dit_cli.main",
        "generate",
        "-m",
        model,
        "--seed",
        "0",
        "--prompt-file",
        str(prompts),
        "--batch-size",
        "8",
        "-o",
        f"{folder}/{{index:04d}}.png",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.png"))


def value(metric: str, question: dict) -> float:
    """One metric of one question; every image must take part."""
    outcome = library.evaluate(library.EvalRequest(metrics=[spec.parse("metrics", metric)], **question))
    if outcome.failed:
        raise outcome.failed[0]
    return round(outcome.values[0].value, 2)


def measure(model: str, count: int) -> dict[str, float]:
    """All figures."""
    loaded = load(model)
    size = loaded.defaults.size
    trained, names = real(STYLES, size)
    first = {name: i for i, name in reversed(list(enumerate(names)))}  # the default style's image
    chosen = np.random.default_rng(0).permutation(sorted(first.values()))
    mine, rest = chosen[:count], chosen[count : 2 * count]
    asked = [names[i] for i in mine]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        reals = write(root / "real", trained[mine], asked)
        others = write(root / "rest", trained[rest], [names[i] for i in rest])
        training = write(root / "training", trained, names)
        foreign, foreign_names = real((OTHER,), size)
        wanted = [i for i, name in enumerate(foreign_names) if name in set(asked)]
        strange = write(root / "foreign", foreign[wanted], [foreign_names[i] for i in wanted])
        made = generate(model, asked, root / "made", root)
        prompts = library.read_prompts(root / "real/prompts.jsonl")
        return {
            "retrieval %": value("retrieval", {"pictures": made}),
            "retrieval of real images %": value("retrieval", {"pictures": reals, "prompts": prompts}),
            "frechet": value("frechet", {"pictures": made, "references": reals}),
            "frechet floor": value("frechet", {"pictures": others, "references": reals}),
            "nearest dB": value("nearest", {"pictures": made, "references": training}),
            "nearest of another style dB": value("nearest", {"pictures": strange, "references": training}),
            "binding %": value("binding", {"pictures": generate(model, pairs(), root / "pairs", root)}),
            "binding of real images %": real_binding(root, trained, names),
            "autoencoder dB": value("psnr", {"pictures": reals, "through": library.autoencoder_reference(loaded)}),
        }


def pairs() -> list[str]:
    """The prompts of binding.txt."""
    lines = Path(__file__).with_name("binding.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def real_binding(root: Path, found: np.ndarray, names: Sequence[str]) -> float:
    """Binding of the real images that are called a colour and a thing."""
    named = [i for i, name in enumerate(names) if name.partition(" ")[0] in COLOURS and " " in name]
    paths = write(root / "named", found[named], [names[i] for i in named])
    prompts = library.read_prompts(root / "named/prompts.jsonl")
    return value("binding", {"pictures": paths, "prompts": prompts})


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.pictures)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, number in result.items():
        print(f"{name:32} {number:10.2f}")


if __name__ == "__main__":
    main()
