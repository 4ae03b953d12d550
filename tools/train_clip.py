"""Train the image and text encoder of ``dit eval`` on real images: ``python tools/train_clip.py RECIPE``.

Writes ``picture.onnx``, ``text.onnx`` and ``judge.json`` into ``RUNS/NAME`` and prints what was measured.
The training data is found by $DIT_DATA.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dit_tools.tasks.train import clip


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="dit_tools/models/clip64/recipe.toml, or one like it")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run (default: runs)")
    given = parser.parse_args()
    print(json.dumps(clip.train_clip(clip.load_recipe(given.recipe), given.runs / given.recipe.resolve().parent.name)))


if __name__ == "__main__":
    main()
