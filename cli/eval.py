"""``dit eval``: metrics of images. The work is in ``dit_tools.tasks.evaluate``."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli import _method_options
from dit_cli import _options as o
from dit_cli._app import command as make
from dit_tools.core.errors import ExitCode

Files = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, patterns, @LIST or '-' for standard input.")
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        "-r", "--reference", metavar="IMAGE", help="Reference images, matched by file name; may be given several times."
    ),
]
Through = Annotated[
    str | None,
    typer.Option("--through", metavar="MODEL", help="Compare with the reconstruction by this model's autoencoder."),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="FILE", help="JSONL file with the keys file and prompt, for images without a record."
    ),
]


def evaluate(
    pictures: Files,
    metric: _method_options.Metrics = None,
    reference: Reference = None,
    through: Through = None,
    prompts: Prompts = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Compute metrics of images.

    Prints one line per metric. Pair metrics (psnr, ssim) compare each image with the reference of
    the same name, set metrics (frechet, nearest) compare it with all references, and retrieval
    compares it with the prompt in its record. The default is psnr and ssim when there are
    references, and retrieval otherwise. 'dit eval REAL/ --through emoji' measures an autoencoder.
    """
    from dit_cli._errors import say
    from dit_tools.core import spec
    from dit_tools.jobs.inputs import expand_inputs
    from dit_tools.jobs.progress import bar
    from dit_tools.tasks import evaluate as library

    compared = bool(reference or through)
    names = metric or (["psnr", "ssim"] if compared else ["retrieval"])
    metrics = [spec.parse("metrics", name) for name in names]
    question = library.EvalRequest(
        expand_inputs(pictures),
        metrics,
        expand_inputs(reference or ()),
        library.autoencoder_reference(_model(through, device)) if through else None,
        library.read_prompts(Path(prompts)) if prompts else {},
    )
    with bar(None, "images", quiet) as shown:
        outcome = library.evaluate(question, lambda: shown.update(1))
    for value in outcome.values:
        print(json_module.dumps(_object(value)) if json else _line(value), flush=True)
    for error in outcome.failed:
        say(f"dit: {error}")
    if not outcome.values:
        return ExitCode.INPUT
    return ExitCode.PARTIAL if outcome.failed else ExitCode.OK


def _model(name: str, device: str | None) -> Any:
    from dit_tools.models.loading.load import LoadOptions, load

    return load(name, LoadOptions(device=device or "auto"))


def _line(value: Any) -> str:
    unit = f" {value.unit}" if value.unit else ""
    arrow = "higher" if value.higher_is_better else "lower"
    count = f"{value.count} image" + ("" if value.count == 1 else "s")
    note = f"; {value.note}" if value.note else ""
    return f"{value.metric:<10} {value.value:.4g}{unit} ({count}; {arrow} is better{note})"


def _object(value: Any) -> dict[str, Any]:
    """Strict JSON has no infinity: identical images have a PSNR of null."""
    import math

    made = {"schema": "dit.eval/1", **asdict(value)}
    return made | ({} if math.isfinite(value.value) else {"value": None})


command = make(evaluate)
