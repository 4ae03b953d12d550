"""``dit models``: lists, shows, verifies and pulls models."""

from __future__ import annotations

import json as json_format
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dit_cli._app import group
from dit_cli._options import AllowPickle, Json, Quiet
from dit_tools.core.errors import ExitCode, ModelError

if TYPE_CHECKING:
    from dit_tools.models.loading.store import Check, Stored


def _complete(incomplete: str) -> list[str]:
    from dit_tools.models.loading.store import builtin_names

    return builtin_names()


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=_complete, help="Built-in name, folder, or hub id of a downloaded model."
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        autocompletion=_complete,
        help="Built-in names, folders or hub ids (default: all built-in models).",
    ),
]
HubId = Annotated[str, typer.Argument(metavar="HUB_ID", help="Repository: OWNER/NAME, or OWNER/NAME@REVISION.")]
SHOWN_FIELDS = (
    "title",
    "task",
    "family",
    "size",
    "default_steps",
    "default_cfg",
    "solver",
    "schedule",
    "alpha",
    "licence",
    "revision",
)


def models() -> None:
    """List, show, verify and pull models.

    A model is built in, a folder in diffusers format, or a repository on the hub. Downloaded models
    stay in the hub's cache, which other programs share.
    """


def list_models(json: Json = False) -> None:
    """List the models on this machine.

    Built-in models and those in the hub's cache are listed with their size on disk.
    """
    from dit_tools.models.loading.store import builtin_models, hub_models

    builtin, hub = builtin_models(), hub_models()
    if json:
        for model in (*builtin, *hub):
            print(json_format.dumps(as_object(model), ensure_ascii=False))
        return
    column = max((len(model.name) for model in (*builtin, *hub)), default=0)
    for title, found in (("built in", builtin), ("in the hub's cache", hub)):
        if found:
            print(title)
        for model in found:
            about = str(model.facts.get("title", ""))
            print(f"  {model.name:<{column}}  {size_text(model.bytes):>8}  {about}".rstrip())
    if not hub:
        print("nothing in the hub's cache; 'dit models pull OWNER/NAME' fetches a model")


def show(name: Name, json: Json = False) -> None:
    """Show the properties of a model and its card."""
    from dit_tools.models.loading.store import locate

    model = locate(name)
    if json:
        print(json_format.dumps(as_object(model) | {"card": model.card}, ensure_ascii=False))
        return
    rows = {"name": model.name, "kind": model.kind, "path": str(model.path), "on disk": size_text(model.bytes)}
    rows |= {key: _plain(model.facts[key]) for key in SHOWN_FIELDS if key in model.facts}
    for key, value in rows.items():
        print(f"{key.replace('_', ' ') + ':':<15}{value}")
    if model.card:
        print(f"\n{model.card}")


def verify(names: Names = None, json: Json = False, quiet: Quiet = False) -> ExitCode:
    """Compare a model's files with their recorded hashes.

    The hashes of built-in models are in dit.json or photo.json, those of downloaded models in the file names of
    the hub's cache; of other folders only the structure is checked. Damaged and missing files are
    listed, and the exit code is 5 if there are any.
    """
    from dit_tools.models.loading.store import builtin_names, locate
    from dit_tools.models.loading.store import verify_files as check

    found = [locate(name) for name in names or builtin_names()]
    bad = []
    for model in found:
        result = check(model)
        if json:
            print(json_format.dumps(_checked(model, result), ensure_ascii=False))
        elif not quiet or not result.ok:
            print(_report(model, result))
        if not result.ok:
            bad.append(model)
    if bad:
        pulled = [model for model in bad if model.kind == "hub"]
        remedy = f"run 'dit models pull {pulled[0].name}'" if pulled else "reinstall dit"
        raise ModelError(f"damaged: {', '.join(model.name for model in bad)}", remedy)
    return ExitCode.OK


def pull(hub_id: HubId, allow_pickle: AllowPickle = None, quiet: Quiet = False, json: Json = False) -> None:
    """Download a model, or its newer files, from the hub.

    Only the files that the pipeline's index names are downloaded: safetensors weights, configs,
    tokenizers and the model card. Code is never downloaded, and pickled weights only with
    --allow-pickle. Prints the folder.
    """
    if quiet or not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from dit_tools.models.loading import resolve
    from dit_tools.models.loading.store import Stored

    try:
        folder = resolve.pull(hub_id, allow_pickle=bool(allow_pickle))
    except ModelError as error:
        raise ModelError(error.message.removeprefix("--model "), error.hint) from error
    model = Stored(hub_id.partition("@")[0], "hub", folder)
    print(json_format.dumps(as_object(model), ensure_ascii=False) if json else folder)


def as_object(model: Stored) -> dict[str, Any]:
    """A model as one JSON object."""
    facts = {key: model.facts[key] for key in SHOWN_FIELDS if key in model.facts}
    if model.kind == "hub":
        facts.setdefault("revision", model.path.name)
    return {"name": model.name, "kind": model.kind, "path": str(model.path), "bytes": model.bytes, **facts}


def _checked(model: Stored, result: Check) -> dict[str, Any]:
    return {
        "name": model.name,
        "ok": result.ok,
        "files": len(result.whole),
        "damaged": list(result.damaged),
        "missing": list(result.missing),
    }


def _report(model: Stored, result: Check) -> str:
    lines = [f"{model.name}: {len(result.whole)} files are intact"]
    lines += [f"{model.name}: damaged {name}" for name in result.damaged]
    lines += [f"{model.name}: missing {name}" for name in result.missing]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def size_text(size: float) -> str:
    """Bytes for people: ``12.3 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


command = group(models, {"list": list_models, "show": show, "verify": verify, "pull": pull}, default="list")
