"""``--target onnx``: a model's graphs, or those of an export made for the occasion, in few bits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.jobs.atomic import PREFIX
from dit_tools.tasks.export import model_folder
from dit_tools.tasks.quantize import packed_folder, quantize, resume
from dit_tools.tasks.quantize.layers import NEAREST, SENSITIVE, Layer, Layers

GRAPH, CONTEXT = "transformer.onnx", "transformer.context.onnx"
HELD = 64
"""Calls of the network whose inputs calibrate static scales, spread evenly over sampling."""


def preflight(source: Any, wanted: packed_folder.QuantizeConfig, target: Any, dry: bool) -> Layers:
    """The layers as they will lie. Raises as ``run.preflight`` and ``exporting.preflight.check_export``.

    Nothing of the weights is read.
    """
    if wanted.keep and target.form != "int4":
        raise UnsupportedError(
            f"--keep: form={target.form} of --target onnx takes every product of a graph",
            "use form=int4, or --target folder",
        )
    if target.beside and not (source.path / GRAPH).is_file():
        raise UnsupportedError(
            f"--target onnx:beside=true: {source.name} has no graphs to put one next to",
            "write them with 'dit export', or leave beside out",
        )
    layers = packed_folder.preflight(source, wanted, dry)
    if target.form == "int4" or not (source.path / GRAPH).exists():
        from dit_tools.tasks.export import preflight as export

        place = wanted.output.absolute().parent / f"{PREFIX}check"
        export.check_export(source, export.ExportConfig(place, ("transformer",)))
    return layers if target.form == "int4" else _forecast(layers, target.form)


def _forecast(layers: Layers, form: str) -> Layers:
    """About what a form makes of layers: int8 all linear layers, fp16 everything."""
    others = {n: (("F16", entry[1]), path) for n, (entry, path) in layers.others.items()}
    linear = [replace(layer, layout=None, dtype="F16", why="plain") for layer in layers.linear]
    if form != "fp16":
        linear = [_int8(layer) for layer in linear]
    return replace(layers, linear=tuple(linear), others=others)


def _int8(layer: Layer) -> Layer:
    return replace(layer, layout=NEAREST.layout(layer.rows, layer.columns), packer=NEAREST)


def make(source: Any, wanted: packed_folder.QuantizeConfig, target: Any, trial: Any, tell: Any) -> dict[str, Any]:
    """Write ``wanted.output``; returns its facts. Raises as the parts of this module do."""
    layers = preflight(source, wanted, target, dry=False)
    asked = quantize.request(source, wanted, trial, spec.format(target))
    with resume.workplace(wanted.output, wanted.overwrite, asked) as work:
        full, layers, seen = quantize.learn_layers(source, wanted, trial, layers, tell, work)
        folder, graphs = work.folder, _graphs(source, target, work)
        _copy(source.path, folder)
        made = _write_all(graphs, layers, seen, target, trial, tell, work)
        files = [*folder.glob("transformer*.onnx"), *folder.glob("transformer*.onnx.data")]
        told = facts(source, wanted, target, files, layers)
        table = rows(layers, target, tell)
        _write_export(folder, graphs, target, made)
        told |= quantize.measure_quality(source, full, trial)(folder)
        (folder / packed_folder.FACTS_FILE).write_text(
            json.dumps(told | {"layers": table}, indent=1) + "\n", encoding="utf-8"
        )
        if (folder / "dit.json").exists():
            packed_folder.update_hashes(folder)
        for name in made:
            describe(folder / name, told)
    return told | {"layers": table}


def _graphs(source: Any, target: Any, work: resume.Work) -> Path:
    """A folder with graphs in float32: the model's own, or those of an export.

    ``int4`` packs layer by layer, and the graphs of a built-in model join some of them.
    """
    if target.form != "int4" and (source.path / GRAPH).exists():
        return source.path
    from dit_tools.tasks.export.export import export
    from dit_tools.tasks.export.preflight import ExportConfig

    def make(place: Path) -> None:
        export(source, ExportConfig(place / "export", ("transformer",)))

    work.once("export", make, aside=True)
    return work.scratch / "export"


def _copy(source: Path, folder: Path) -> None:
    """Everything but the transformer's weights, with the graphs of the other parts."""
    graphs = [path for path in source.iterdir() if ".onnx" in path.suffixes and path.is_file()]
    others = [path for path in graphs if not path.name.startswith("transformer")]
    model_folder.copy_files([*packed_folder.other_files(source), *others], source, folder)


def _write_all(
    graphs: Path, layers: Layers, seen: Mapping[str, Any], target: Any, trial: Any, tell: Any, work: resume.Work
) -> dict[str, int]:
    """Write every graph of the transformer; file name -> number of products in few bits."""
    from dit_tools.tasks.export import half, int8, nbits, static8

    names = [name for name in (GRAPH, CONTEXT) if (graphs / name).exists()]
    made = {}
    for name in names:
        path = graphs / name

        def make(place: Path, path: Path = path) -> int:
            new = place / path.name
            if target.form == "dynamic":
                return int8.quantize(path, new)
            if target.form == "fp16":
                return half.halve(path, new)
            if target.form == "static":
                symmetric = target.provider != "cpu"
                feeds = _feeds(graphs, names, trial, work)[path.name]
                return static8.quantize(path, new, feeds, _sensitive, symmetric)
            return nbits.write_nbits(path, new, layers.packed(), _packer(layers, seen, tell, work))

        made[name] = work.once(name, make)
        tell({"type": "graph", "path": name, "products": made[name]})
    return made


def _sensitive(name: str) -> bool:
    """Whether a node, by its path, is outside of the blocks and sensitive."""
    return "blocks" not in name and bool(SENSITIVE.search(name))


def _packer(layers: Layers, seen: Mapping[str, Any], tell: Any, work: resume.Work) -> Any:
    """What packs a layer's weight, and remembers that over a kill."""
    import torch

    by_name = {layer.name: layer for layer in layers.linear}

    def pack(name: str, weight: Any) -> dict[str, Any]:
        layer = by_name[name]
        tensor = torch.tensor(weight).float().contiguous()
        assert layer.layout is not None
        layout = layer.layout
        made = work.tensors(name, lambda: layer.packer.pack(tensor, layout, seen.get(name)))
        tell({"type": "packed", "name": name})
        return {key: value.numpy() for key, value in made.items()}

    return pack


# calibration of static scales ---------------------------------------------------------------------


class _Recorder:
    """A session that keeps what it is fed."""

    def __init__(self, session: Any):
        self.session, self.feeds = session, []

    def run(self, outputs: Any, feeds: Mapping[str, Any]) -> Any:
        self.feeds.append(dict(feeds))
        return self.session.run(outputs, feeds)

    def get_inputs(self) -> Any:
        return self.session.get_inputs()


def _feeds(graphs: Path, names: list[str], trial: Any, work: resume.Work) -> dict[str, list[dict[str, Any]]]:
    """Inputs of each graph while the float32 graphs sample the calibration prompts."""
    import numpy as np

    work.once("feeds", lambda place: _observe(graphs, names, trial, place), aside=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        with np.load(work.scratch / f"{name}.npz") as file:
            calls = sorted({int(key.partition("/")[0]) for key in file.files})
            found[name] = [{} for _ in calls]
            for key in file.files:
                call, _, value = key.partition("/")
                found[name][int(call)][value] = file[key]
    return found


def _observe(graphs: Path, names: list[str], trial: Any, place: Path) -> None:
    """Write ``NAME.npz``, arrays by call and input, for each graph."""
    import numpy as np

    from dit_tools.models.loading.load import load
    from dit_tools.tasks.quantize import denoising_error

    model = load(str(graphs), backend="onnx", device="cpu")
    network: Any = model.network
    recorders = {GRAPH: _Recorder(network.session)}
    network.session = recorders[GRAPH]
    if CONTEXT in names:
        network.context = recorders[CONTEXT] = _Recorder(network.context)
    for _ in denoising_error.sample_prompts(model, quantize.calibration_prompts(model, trial), trial.steps):
        pass
    for name, recorder in recorders.items():
        calls = _spread(recorder.feeds)
        np.savez(
            place / f"{name}.npz",
            **{f"{i}/{key}": value for i, feed in enumerate(calls) for key, value in feed.items()},
        )


def _spread(feeds: list[Any]) -> list[Any]:
    """At most ``HELD`` of them, evenly."""
    step = max(len(feeds) / HELD, 1)
    return [feeds[int(i * step)] for i in range(min(len(feeds), HELD))]


# what the folder says of itself -------------------------------------------------------------------


def facts(
    source: Any, wanted: packed_folder.QuantizeConfig, target: Any, files: Iterable[Path], layers: Layers
) -> dict[str, Any]:
    """What ``quantize.json`` says before anything is measured; ``files``: the new graphs."""
    size = sum(path.stat().st_size for path in files)
    told = packed_folder.facts(source, wanted, layers)
    scheme = told["scheme"] if target.form == "int4" else ""
    return told | {
        "target": spec.format(target),
        "scheme": scheme,
        "bytes": size,
        "ratio": round(size / (4 * layers.numbers), 5),
    }


def rows(layers: Layers, target: Any, tell: Any) -> list[dict[str, Any]]:
    """A line of the table per linear layer, told as they come."""
    made = []
    for layer in layers.linear:
        layout = layer.layout.name if layer.layout else "F32" if target.form == "int4" else "F16"
        made.append({"name": layer.name, "layout": layout, "why": layer.why, "bytes": layer.nbytes, "snr": None})
        tell({"type": "layer", **made[-1]})
    return made


def _write_export(folder: Path, graphs: Path, target: Any, made: Mapping[str, int]) -> None:
    """``export.json``, which tells how to open the graphs, with what is special about these."""
    path = graphs / model_folder.FACTS_FILE
    facts: dict[str, Any] = {"dit_export": 1}
    if path.exists():
        facts = json.loads(path.read_text(encoding="utf-8"))
    if not (folder / "text_encoder.onnx").exists():
        facts["max_tokens"] = None
    elif facts.get("max_tokens") is None:
        from dit_tools.tasks.export.export import max_tokens

        facts["max_tokens"] = max_tokens(folder)
    facts["graphs"] = {name: {"file": name, "products": count} for name, count in made.items()}
    facts["quantized"] = {"form": target.form, "provider": target.provider, "one_by_one": target.form == "dynamic"}
    (folder / model_folder.FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def describe(path: Path, facts: Mapping[str, Any]) -> None:
    """The card as metadata of the graph's file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    others = [entry for entry in model.metadata_props if not entry.key.startswith("dit.")]
    del model.metadata_props[:]  # a run that went on may have been here before
    model.metadata_props.extend(others)
    for key, value in packed_folder.card(facts).items():
        model.metadata_props.add(key=key, value=value)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)
