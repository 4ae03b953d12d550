"""Fuzz every reader and print the counts: ``python -m tests.fuzz --seconds 20`` each, or for hours.

A case is wrong when anything but the project's own errors comes out, when it takes over 10 seconds,
or when it allocates over 1 GB. Wrong cases are saved alongside, to become tests, never into the
repository as they are: some crash other software. Ends with exit status 1 when there was one.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from dit_tools.core.errors import DitError
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target, targets

SLOW = 10.0  # seconds
LARGE = 1 << 30  # bytes


def fuzz(
    target: Target, seconds: float, seed: int, folder: Path, most: int = sys.maxsize
) -> tuple[int, int, list[str]]:
    """Cases, cases that were read, and what went wrong, in words with the case's number.

    Case ``i`` depends on the seed and ``i`` alone.
    """
    path, end = folder / f"case{target.suffix}", time.monotonic() + seconds
    if "." in target.suffix[1:]:
        path = folder / target.suffix
    count = read = 0
    wrong: list[str] = []
    while time.monotonic() < end and count < most and len(wrong) < 20:
        content = mutated(target.seeds, random.Random(f"{seed}/{target.name}/{count}"))
        path.write_bytes(content)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        faulthandler.dump_traceback_later(3 * SLOW, exit=True)
        trouble = ""
        try:
            target.read(path)
            read += 1
        except DitError as error:
            trouble = "" if str(error) else "an empty error"
        except Exception as error:
            trouble = f"{type(error).__name__}: {str(error)[:100]}"
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - began > SLOW:
            trouble = f"{time.monotonic() - began:.0f} s"
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > LARGE:
            trouble = "over 1 GB"
        if trouble:
            wrong.append(f"{target.name} case {count} of seed {seed}: {trouble}")
            (folder / f"{target.name}-{seed}-{count}").write_bytes(content)
        count += 1
    return count, read, wrong


def main() -> int:
    """Fuzz what the command line says and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="for each reader (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default: 0)")
    parser.add_argument("--only", help="one reader")
    given = parser.parse_args()
    folder, total, all_wrong = Path(tempfile.mkdtemp(prefix="dit-fuzz-")), 0, []
    print(f"{'reader':<14} {'cases':>9} {'read':>9} {'wrong':>6}")
    for target in targets():
        if given.only in (None, target.name):
            count, read, wrong = fuzz(target, given.seconds, given.seed, folder)
            total, all_wrong = total + count, all_wrong + wrong
            print(f"{target.name:<14} {count:>9} {read:>9} {len(wrong):>6}", flush=True)
    print(f"{'all':<14} {total:>9} {'':>9} {len(all_wrong):>6}")
    print("\n".join([*all_wrong, f"cases are in {folder}"] if all_wrong else []))
    return 1 if all_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
