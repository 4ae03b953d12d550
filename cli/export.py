"""``dit export``: writes ONNX graphs of a model, checked against PyTorch."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli._app import command as make
from dit_cli._errors import say
from dit_cli._options import Json, Overwrite, Quiet
from dit_tools.core.errors import UsageError


def _models(incomplete: str) -> list[str]:
    from dit_tools.models.loading.resolve import builtin_names

    return [name for name in builtin_names() if name.startswith(incomplete)]


def export(
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME",
            autocompletion=_models,
            help="Model to export: built-in name, folder or hub id.",
        ),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write; it must not exist yet.")
    ],
    parts: Annotated[
        str | None,
        typer.Option(
            "--parts",
            metavar="NAMES",
            help="Parts to export: transformer,text_encoder,vae (default: all that can be exported).",
        ),
    ] = None,
    opset: Annotated[
        int, typer.Option("--opset", metavar="N", help="Version of the ONNX operator set, 17 to 20.")
    ] = 17,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare every graph with PyTorch.")] = True,
    int8: Annotated[bool, typer.Option("--int8", help="Also write an int8 graph of the transformer.")] = False,
    split: Annotated[
        bool,
        typer.Option("--split", help="Also write the transformer as several subgraphs, for caches that skip blocks."),
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write ONNX graphs of a model, checked against PyTorch.

    FOLDER becomes a complete model: the weights, which the graphs share, the rest of the pipeline,
    and export.json, which lists what was written. 'dit generate -m FOLDER --backend onnx' runs it.
    Prints the paths of the graphs.
    """
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.models.loading.resolve import resolve
    from dit_tools.tasks.export.export import export as write
    from dit_tools.tasks.export.preflight import ExportConfig

    wanted = ExportConfig(Path(output), _words(parts), opset, check, overwrite, int8, split)
    with Interruptible() as interrupts:
        interrupts.stop_requested = True  # one item: the first Ctrl-C stops it

        def tell(event: dict[str, Any]) -> None:
            if json:
                print(json_format.dumps(event), flush=True)
            elif not quiet:
                say(_line(event))

        paths = write(resolve(model), wanted, tell)
    if json:
        done = {"type": "done", "folder": output, "files": [str(path) for path in paths]}
        print(json_format.dumps(done))
        return
    for path in paths:
        print(path)


def _words(parts: str | None) -> tuple[str, ...]:
    if parts is None:
        return ()
    words = tuple(word.strip() for word in parts.split(",") if word.strip())
    if not words:
        raise UsageError("--parts is empty", "give transformer, text_encoder or vae")
    return words


def _line(event: dict[str, Any]) -> str:
    difference = event["difference"]
    found = "not compared" if difference is None else f"differs from PyTorch by {difference:.1e}"
    return f"dit: {Path(event['path']).name}: {found}"


command = make(export)
