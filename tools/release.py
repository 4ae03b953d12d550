"""Renew the folders of the models that come with dit.

    python tools/release.py emoji emoji-small=runs/emoji-small/pipeline

``NAME=PIPELINE`` exports a trained pipeline into ``dit_tools/builtin/NAME`` first; card, notice, recipes
and facts that lie there are kept. Every model then gets its graph in int8, which is what ``dit quantize -m
NAME --target onnx:beside=true`` writes, and the graph in pieces, for caches that skip blocks.
``--documents`` only lists edited cards and recipes in ``dit.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dit_tools.models.loading import validation
from dit_tools.models.loading.resolve import BUILTIN
from dit_tools.tasks.export.builtin import add_subgraphs
from dit_tools.tasks.quantize import release
from dit_tools.tasks.quantize.onnx_sidecar import INT8
from dit_tools.tasks.quantize.quantize import EvalConfig


def renew(name: str, pipeline: str, prompts: int, models: Path) -> None:
    """Export, cut in pieces and quantize one model."""
    if pipeline:
        for graph, error in release.export(name, Path(pipeline), models).items():
            print(f"{name}: {graph}.onnx: largest difference to torch {error:.1e}")
    folder = models / name
    tokens = int(validation.read_json(folder / "dit.json")["max_tokens"])
    print(f"{name}: subgraphs: largest difference to torch {add_subgraphs(folder, tokens):.1e}")
    found = release.add_int8(folder, EvalConfig(prompts=prompts, device="cpu"))
    verdict = found.get("verdict", {})
    print(
        f"{name}: {INT8}: {found['bytes'] / 1e6:.1f} MB, {found['ratio']:.3f}x of float32, "
        f"PSNR {verdict.get('psnr')} dB, worst {verdict.get('psnr_worst')} dB"
    )


def main() -> None:
    """Read the command line and renew every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME[=PIPELINE]")
    parser.add_argument("--prompts", type=int, default=16, help="prompts that judge the int8 graph (default: 16)")
    parser.add_argument("--documents", action="store_true", help="only renew the list of files in dit.json")
    parser.add_argument("--builtin", type=Path, default=BUILTIN, help="folder of the models (default: that of dit)")
    given = parser.parse_args()
    for text in given.models:
        name, _, pipeline = text.partition("=")
        if given.documents:
            release.refresh_facts(given.builtin / name)
        else:
            renew(name, pipeline, given.prompts, given.builtin)


if __name__ == "__main__":
    main()
