"""The built-in models' folders: exported, in pieces, with an int8 graph that ``dit quantize`` made.

``python -m dit_tools.tasks.quantize.release emoji emoji-small=runs/emoji-small/pipeline`` exports the
second model anew (``exporting.builtin``, with facts, card and notice from ``recipes/``) and gives
both their ``transformer.int8.onnx``, which is what ``dit quantize -m NAME --target
onnx:beside=true`` writes, with the verdict in its metadata, and the transformer in pieces, for
caches that skip blocks. ``dit.json`` then lists them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.models.loading import validation
from dit_tools.models.loading.resolve import BUILTIN, Resolved
from dit_tools.tasks.quantize import packed_folder
from dit_tools.tasks.quantize.onnx_sidecar import INT8
from dit_tools.tasks.quantize.quantize import Trial

TARGET = "onnx:beside=true"


def export(name: str, pipeline: Path, recipes: Path, models: Path = BUILTIN) -> dict[str, float]:
    """Replace the built-in model ``name``; returns each graph's difference to torch."""
    from dit_tools.tasks.export import builtin

    facts = json.loads((recipes / f"{name}.facts.json").read_text(encoding="utf-8"))
    notice = recipes / f"{name}.NOTICE.txt"
    if not notice.exists():  # a sibling has its elder's data
        notice = recipes / f"{name.partition('-')[0]}.NOTICE.txt"
    documents = {
        "README.md": (recipes / f"{name}.card.md").read_text(encoding="utf-8"),
        "NOTICE.txt": notice.read_text(encoding="utf-8"),
    }
    return builtin.export(pipeline, models / name, facts, documents)


def add_int8(folder: Path, trial: Trial) -> dict[str, Any]:
    """Put the int8 graph into a built-in model's folder; returns the facts of ``quantize.json``.

    The graph takes its name in one step, and ``dit.json`` after it.
    """
    from dit_tools.tasks.export.builtin import write_facts

    facts, target = validation.read_json(folder / "dit.json"), spec.parse("formats", TARGET)
    source = Resolved("builtin", folder, folder.name, str(facts.get("revision", "")))
    with tempfile.TemporaryDirectory() as scratch:
        wanted = packed_folder.Wanted(Path(scratch) / folder.name, target.scheme(None))
        found = target.make(source, wanted, trial, lambda event: None)
        part = folder / f".{INT8}.part"
        shutil.copyfile(wanted.output / INT8, part)
        os.replace(part, folder / INT8)
    write_facts(folder, facts)
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME[=PIPELINE]")
    parser.add_argument("--recipes", type=Path, default=Path("recipes"))
    parser.add_argument("--prompts", type=int, default=16, help="of the int8 graph's verdict")
    arguments = parser.parse_args()
    from dit_tools.tasks.export.builtin import add_pieces

    for text in arguments.models:
        name, _, pipeline = text.partition("=")
        if pipeline:
            for graph, error in export(name, Path(pipeline), arguments.recipes).items():
                print(f"{name}: {graph}.onnx: largest difference to torch {error:.1e}")
        folder = BUILTIN / name
        tokens = int(validation.read_json(folder / "dit.json")["max_tokens"])
        print(f"{name}: in pieces: largest difference to torch {add_pieces(folder, tokens):.1e}")
        found = add_int8(BUILTIN / name, Trial(prompts=arguments.prompts, device="cpu"))
        verdict = found.get("verdict", {})
        print(
            f"{name}: {INT8}: {found['bytes'] / 1e6:.1f} MB, {found['ratio']:.3f}x of float32, "
            f"PSNR {verdict.get('psnr')} dB, worst {verdict.get('psnr_worst')} dB"
        )


if __name__ == "__main__":
    main()
