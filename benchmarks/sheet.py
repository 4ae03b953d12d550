"""The prompt sheet of a model: unselected, seed 0, default settings.

    python benchmarks/sheet.py [-m emoji] -o docs/emoji-sheet.png
    python benchmarks/sheet.py -m runs/mine/pipeline --prompts benchmarks/prompts64.txt -o mine.png

Runs the installed `dit generate` on a list of prompts, benchmarks/prompts64.txt unless another is
named, and nothing else. `--columns` tiles a row; `--tile` pixels an image is scaled to, its own
size where it is not given, so that models of different sizes give sheets that can be compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent


def prompts_of(path: Path) -> list[str]:
    """The prompts of a list: its lines that are neither empty nor comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def generate(model: str, prompts: Path, seed: str, folder: Path) -> list[Path]:
    """One image a prompt by the installed ``dit generate``, in the list's order."""
    command = [
        sys.executable,
        "-m",
        "dit_cli.main",
        "generate",
        "-m",
        model,
        "--prompt-file",
        str(prompts),
        "--seed",
        seed,
        "-o",
        f"{folder}/{{index:04d}}.png",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.png"))


def sheet(pictures: Sequence[Image.Image], columns: int, tile: int = 0) -> Image.Image:
    """Images over white, row by row; ``tile`` 0 keeps the size of the first."""
    side = tile or pictures[0].width
    made = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for i, image in enumerate(pictures):
        small = image.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
        made.paste(small, (i % columns * side, i // columns * side), small)
    return made


def main() -> None:
    """Make the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="emoji")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts64.txt")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--tile", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = generate(arguments.model, arguments.prompts, arguments.seed, Path(scratch))
        images = [Image.open(path) for path in made]
        sheet(images, arguments.columns, arguments.tile).save(arguments.output)


if __name__ == "__main__":
    main()
