"""The forty-prompt sheet of a built-in model: unselected, seed 0, default settings.

    python benchmarks/sheet.py [--model emoji64] -o docs/emoji64-sheet.png

Runs the installed `dit generate` on benchmarks/prompts40.txt, nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Make the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji64")
    parser.add_argument("--seed", default="0")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    prompts = Path(__file__).with_name("prompts40.txt")
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "dit_cli.main", "generate", "-m", arguments.model,
            "--prompt-file", str(prompts), "--seed", arguments.seed, "-o", f"{scratch}/",
            "--grid", str(arguments.output), "--overwrite",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
