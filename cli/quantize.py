"""``dit quantize``: stores a model's weights in few bits and measures the loss of quality."""

from __future__ import annotations

import json as json_format
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli import _method_options
from dit_cli import _options as o
from dit_cli._app import command as make
from dit_cli._errors import say
from dit_tools.core.errors import ExitCode, UsageError


def quantize(
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME",
            autocompletion=o._models,
            help="Model to quantize: built-in name, folder or hub id.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write; it must not exist yet.")
    ] = None,
    scheme: _method_options.Scheme = None,
    target: _method_options.Format = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="REGEX", help="Do not quantize layers whose name matches; may be given several times."
        ),
    ] = None,
    max_loss: Annotated[
        str | None,
        typer.Option(
            "--max-loss",
            metavar="DB",
            help="Choose the bits of each layer so that the denoising error rises by at most this much.",
        ),
    ] = None,
    prompts: Annotated[
        int,
        typer.Option(
            "--prompts",
            min=0,
            max=1000,
            metavar="N",
            help="Number of prompts in the quality report; 0 skips the report.",
        ),
    ] = 4,
    prompt_file: Annotated[
        str | None,
        typer.Option("--prompt-file", metavar="FILE", help="Read the prompts of the quality report from a file."),
    ] = None,
    calibration: Annotated[
        int,
        typer.Option(
            "--calibration",
            min=1,
            max=10000,
            metavar="N",
            help="Number of prompts sampled for calibrated schemes and --max-loss.",
        ),
    ] = 4,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, max=1000, metavar="N", help="Number of sampling steps (default: the model's own)."
        ),
    ] = None,
    device: o.Device = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> int:
    """Quantize a model's weights and measure the loss of quality.

    FOLDER becomes a complete model that 'dit generate -m FOLDER' runs with PyTorch, or with ONNX
    Runtime after --target onnx. The same prompts and seeds are sampled with the full and the
    quantized network. The report lists the layers, the size, PSNR, SSIM and the rise of the
    denoising error; it is stored in FOLDER/quantize.json and in the weight file. Prints the folder.
    """
    from dit_tools.core import spec
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.models.loading.resolve import resolve
    from dit_tools.tasks.quantize import bit_allocation, packed_folder
    from dit_tools.tasks.quantize.quantize import EvalConfig

    limit = bit_allocation.limit_of(max_loss) if max_loss is not None else None
    if output is None and not dry_run:
        raise UsageError("-o is missing", "name a new folder, or add --dry-run")
    kind = spec.parse("formats", target or "folder")
    packer = kind.scheme(scheme)
    if limit is not None:
        bit_allocation.check_scheme(packer, kind)
    wanted = packed_folder.QuantizeConfig(Path(output or "."), packer, tuple(keep or ()), overwrite)
    if dry_run:
        return _plan(kind.plan(resolve(model), wanted, output is None), json)
    asked = _prompts(prompt_file) if prompt_file is not None else prompts
    trial = EvalConfig(asked, calibration, steps, device or "auto", limit)
    with Interruptible() as interrupts:
        interrupts.stop_requested = True  # one item: the first Ctrl-C stops it

        def tell(event: dict[str, Any]) -> None:
            if json:
                print(json_format.dumps(event), flush=True)

        facts = kind.make(resolve(model), wanted, trial, tell)
    if json:
        told = {key: value for key, value in facts.items() if key != "layers"}
        print(json_format.dumps({"type": "done", "folder": output, **told}))
        return ExitCode.OK
    if not quiet:
        for line in (*table(facts["layers"], bool(verbose)), *summary(facts)):
            say(line)
    print(output)
    return ExitCode.OK


def _prompts(path: str) -> tuple[str, ...]:
    from dit_tools.jobs.prompts import read_prompts

    return tuple(item.prompt for item in read_prompts(path))


def _plan(layers: Any, json: bool) -> int:
    """What ``--dry-run`` prints: size and memory, before any weight is read."""
    rows = [
        {
            "name": layer.name,
            "layout": layer.layout.name if layer.layout else layer.dtype,
            "why": layer.why,
            "bytes": layer.nbytes,
            "snr": None,
        }
        for layer in layers.linear
    ]
    total = {
        "bytes": layers.nbytes,
        "ratio": round(layers.ratio, 5),
        "memory": layers.nbytes,
        "largest_layer": layers.largest,
    }
    if json:
        for row in rows:
            print(json_format.dumps({"type": "layer", **row}))
        print(json_format.dumps({"type": "plan", **total}))
        return ExitCode.OK
    for line in (*table(rows, every=False), *summary(total)):
        print(line)
    return ExitCode.OK


def table(rows: list[dict[str, Any]], every: bool) -> list[str]:
    """Columns: layers, layout, MB, worst signal-to-noise ratio of weights in dB.

    Layers that differ in the block's number alone share a line unless ``every``.
    """
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        name = row["name"] if every else re.sub(r"\.\d+\.", ".*.", row["name"], count=1)
        merged.setdefault((name, row["layout"]), []).append(row)
    width = max(len(name) for name, _ in merged)
    lines = [f"{'layer':{width}}  {'layout':12} {'n':>3} {'MB':>9} {'SNR dB':>7}"]
    for (name, layout), group in merged.items():
        ratios = [row["snr"] for row in group if row["snr"] is not None]
        worst = f"{min(ratios):7.1f}" if ratios else "       "
        size = sum(row["bytes"] for row in group) / 1e6
        lines.append(f"{name:{width}}  {layout:12} {len(group):3d} {size:9.3f} {worst}".rstrip())
    return lines


def summary(facts: dict[str, Any]) -> list[str]:
    """The size, and the quality report if there is one, as lines."""
    lines = [f"size: {facts['bytes'] / 1e6:.2f} MB, {facts['ratio']:.3f}x of float32"]
    if "largest_layer" in facts:
        lines.append(f"memory: {facts['memory'] / 1e6:.2f} MB of weights to run it")
    found = facts.get("verdict")
    if not found:
        return lines
    psnr = [found[key] if found[key] is not None else float("inf") for key in ("psnr", "psnr_worst")]
    faster = found["seconds_full"] / found["seconds_packed"]
    return [
        *lines,
        f"images: PSNR {psnr[0]:.1f} dB, worst {psnr[1]:.1f} dB, SSIM {_number(found['ssim'])} "
        f"({len(found['prompts'])} prompts, {found['steps']} steps)",
        f"denoising error: {found['loss']:+.3f} dB",
        *_judged(found),
        f"seconds per image: {found['seconds_packed']:.2f} packed, {found['seconds_full']:.2f} full ({faster:.2f}x)",
    ]


def _judged(found: dict[str, Any]) -> list[str]:
    """The share of recognised images as a line; none where the image-text model is not meaningful."""
    if found.get("found_full") is None:
        return []
    return [
        f"recognised by the image-text model: {found['found_packed']:.0f} % of the images, "
        f"{found['found_full']:.0f} % of the full network's"
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


command = make(quantize)
