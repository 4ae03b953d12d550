"""Kills runs over many images at random moments, and checks what the next run leaves.

    python benchmarks/kills.py edit --kills 50 --items 60
    python benchmarks/kills.py invert --kills 50 --items 60
    python benchmarks/kills.py generate --kills 50 --items 60

An undisturbed run comes first. Then the same command is started and killed (SIGKILL) after a random
share of the time that is left, again and again until the number of kills is reached, and a last run
finishes. Checked: each item is there exactly once, with the bytes of the undisturbed run, and no
temporary file is left. Exits with 1 where that is not so.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dit_tools.jobs.atomic import PREFIX
from dit_tools.jobs.manifest import MANIFEST_NAME

PROGRAM = Path(sys.executable).with_name("dit")
COMMANDS = {
    "edit": ("edit", "in", "a blue circle", "--method", "img2img", "--no-metadata"),
    "invert": ("invert", "in", "--inversion", "ddim"),
    "generate": ("generate", "a red apple", "--no-metadata"),
}


def command(name: str, items: int, steps: int, output: str) -> list[str]:
    """The command line of a run into the folder ``output``."""
    count = ["-N", str(items)] if name == "generate" else []
    return [str(PROGRAM), *COMMANDS[name], *count, "--steps", str(steps), "-o", f"{output}/", "-q"]


def make_inputs(folder: Path, count: int) -> None:
    """Small images, no two alike."""
    import numpy as np

    from dit_tools.media import image

    folder.mkdir()
    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32) / 63
    for index in range(count):
        level = index / max(count - 1, 1)
        pixels = np.stack([rows, columns, np.full_like(rows, level)], axis=2)
        (folder / f"{index:03d}.png").write_bytes(image.encode(pixels, "png"))


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file but the manifest."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != MANIFEST_NAME}


def finished(folder: Path) -> int:
    """Outputs that have their name."""
    return sum(not path.name.startswith(PREFIX) and path.name != MANIFEST_NAME for path in folder.glob("*"))


def kill_once(words: list[str], place: Path, seconds: float) -> bool:
    """Start a run and kill it after so many seconds; False where it had ended by then."""
    process = subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode}: {error.decode()}")
    return False


def disturbed(words: list[str], place: Path, output: str, kills: int, whole: float, start: float) -> tuple[int, int]:
    """Kill runs until there were enough kills; gives the kills, and how often a folder was begun again."""
    done = rounds = 0
    while done < kills:
        # A run is killed while it starts, works or writes: some items are made between two kills.
        if kill_once(words, place, start * random.random() + (whole - start) * random.random() ** 3):
            done += 1
        else:
            rounds += 1
            check(place, output)
            shutil.rmtree(place / output)
    return done, rounds


def check(place: Path, output: str) -> None:
    """Raise SystemExit where the folder is not that of the undisturbed run."""
    expected, found = contents(place / "undisturbed"), contents(place / output)
    if found == expected:
        return
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    raise SystemExit(f"missing {missing}, too many {more}, other bytes {changed}")


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment and print a line of what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    random.seed(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_inputs(place / "in", asked.items)
        began = time.perf_counter()
        subprocess.run(
            command(asked.command, asked.items, asked.steps, "undisturbed"),
            cwd=place,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        whole = time.perf_counter() - began
        assert finished(place / "undisturbed") == asked.items
        words = command(asked.command, asked.items, asked.steps, "killed")
        began = time.perf_counter()
        subprocess.run([*words[:-3], "-o", "undisturbed/", "-q"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        start = time.perf_counter() - began  # nothing to do
        kills, rounds = disturbed(words, place, "killed", asked.kills, whole, start)
        subprocess.run(words, cwd=place, check=True, stdout=subprocess.DEVNULL)
        check(place, "killed")
    print(
        f"dit {asked.command}: {kills} kills, {rounds + 1} finished runs of {asked.items} items: "
        "each item once, the same bytes, no temporary file"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
