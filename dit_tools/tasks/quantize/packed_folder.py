"""``dit quantize``: a model's folder becomes a folder with packed weights that dit runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import InputError, ModelError, UnsupportedError
from dit_tools.methods.quantization import BLOCK_WEIGHTS, ActivationStats, Scheme, row_blocks
from dit_tools.models.loading import gguf_loader, quantized, validation
from dit_tools.models.loading.load import graphs_only
from dit_tools.tasks.export import model_folder
from dit_tools.tasks.quantize import malloc, resume
from dit_tools.tasks.quantize.layers import Layer, Layers, find_layers, pattern
from dit_tools.tasks.quantize.safetensors_writer import SafetensorsWriter

Tell = Callable[[dict[str, Any]], None]
FACTS_FILE = "quantize.json"
MARGIN = 1 << 24  # bytes for configs


@dataclass(frozen=True)
class QuantizeConfig:
    """What to make. ``keep``: patterns of layers that stay as they are. ``target``: who runs it."""

    output: Path
    scheme: Scheme
    keep: tuple[str, ...] = ()
    overwrite: bool = False
    target: str = "folder"


def preflight(source: Any, wanted: QuantizeConfig, dry: bool = False) -> Layers:
    """The layers of the model ``source`` (``models.resolve.Resolved``) as they will lie.

    Everything that can be refused is refused here, before weights are read: UnsupportedError for
    a model that cannot be packed, UsageError for patterns, ModelError for damaged files,
    InputError for the output and for a full disk; those two not for a ``dry`` run.
    """
    folder = source.path
    keep = [pattern(text) for text in wanted.keep]
    if not folder.is_dir():
        raise UnsupportedError(f"--model {source.name}: a single file cannot be quantized", "give a diffusers folder")
    if graphs_only(folder) or gguf_loader.is_gguf(folder):
        raise UnsupportedError(f"--model {source.name}: its transformer is quantized already", "give the plain model")
    validation.check_folder(folder)
    if validation.components(folder).get(quantized.PART, (None, None))[0] != "diffusers":
        raise UnsupportedError(f"--model {source.name}: it has no transformer of diffusers", "give another model")
    config = validation.read_json(folder / quantized.PART / "config.json", 10_000_000)
    if quantized.KEY in config:
        raise UnsupportedError(f"--model {source.name}: its transformer is quantized already", "give the plain model")
    if not dry:
        model_folder.check_output(wanted.output, folder, wanted.overwrite, FACTS_FILE, "quantized model")
    files = model_folder.model_weights(folder / quantized.PART)
    layers = find_layers(folder, files, wanted.scheme, keep)
    if not dry:
        _check_space(folder, layers, wanted.output)
    return layers


def other_files(folder: Path) -> list[Path]:
    """The files that go along: everything but the transformer's weights."""
    part = folder / quantized.PART
    return [
        path
        for path in model_folder.model_files(folder)
        if path.parent != part or not path.name.endswith((".safetensors", ".index.json"))
    ]


def _check_space(folder: Path, layers: Layers, output: Path) -> None:
    needed = layers.nbytes + sum(path.stat().st_size for path in other_files(folder)) + MARGIN
    free = shutil.disk_usage(output.parent).free + resume.held_bytes(output)
    if needed > free:
        raise InputError(
            f"-o {output}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            "free some space, or choose another disk",
        )


# writing ----------------------------------------------------------------------------------------


def write_folder(
    source: Any,
    wanted: QuantizeConfig,
    layers: Layers,
    seen: Mapping[str, ActivationStats],
    judge: Callable[[Path], dict[str, Any]],
    tell: Tell = lambda event: None,
    work: resume.Work | None = None,
) -> dict[str, Any]:
    """Write ``wanted.output``, whole or not at all; returns its facts, as in ``quantize.json``.

    ``work``: the hidden folder of the same request, where layers may be written already.

    ``seen``: what calibration saw, by layer. ``judge(folder)`` measures the finished folder before
    it takes its name; what it returns goes into the card. ``tell`` hears of every packed layer:
    ``{"type": "layer", "name", "layout", "why", "bytes", "snr"}``, snr of the weight in dB.
    Raises ModelError for weights that are not finite, InputError when writing fails.
    """
    if work is None:
        with resume.workplace(wanted.output, wanted.overwrite, request(source, wanted)) as own:
            return write_folder(source, wanted, layers, seen, judge, tell, own)
    folder, path = work.folder, work.folder / quantized.PART / quantized.FILE
    model_folder.copy_files(other_files(source.path), source.path, folder)
    path.parent.mkdir(exist_ok=True)
    with SafetensorsWriter(path, layers.entries, _done(path, layers, work)) as writer:
        rows = list(_write_all(writer, layers, seen, tell, work))
        writer.finish()
        _write_config(folder, wanted, layers)
        told = facts(source, wanted, layers)
        told |= judge(folder)
        writer.describe(card(told))
    text = json.dumps(told | {"layers": rows}, indent=1) + "\n"
    (folder / FACTS_FILE).write_text(text, encoding="utf-8")
    if (folder / "dit.json").exists():
        update_hashes(folder)
    return told | {"layers": rows}


def _done(path: Path, layers: Layers, work: resume.Work) -> int:
    """How many tensors are written already; a row of the table stands for all of a layer's."""
    names = [row.get("name") for row in work.rows]
    if not path.is_file() or names != [layer.name for layer in layers.linear[: len(names)]]:
        work.rows.clear()
    if not work.rows:
        return 0
    return len(layers.others) + sum(len(la.tensors()) for la in layers.linear[: len(names)])


def request(source: Any, wanted: QuantizeConfig, **more: Any) -> dict[str, Any]:
    """What decides the bytes that are written; a model whose files changed is another one."""
    from dit_tools import __version__

    files = [
        (str(path.relative_to(source.path)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(source.path.rglob("*"))
        if path.is_file()
    ]
    return {
        "dit": __version__,
        "model": source.name,
        "revision": source.revision,
        "path": str(source.path.absolute()),
        "files": files,
        "scheme": spec.format(wanted.scheme),
        "keep": wanted.keep,
        **more,
    }


def _write_all(
    writer: SafetensorsWriter, layers: Layers, seen: Mapping[str, ActivationStats], tell: Tell, work: resume.Work
) -> Iterator[dict[str, Any]]:
    """Write every tensor that is not there yet; yields a line of the table per linear layer."""
    from safetensors import safe_open

    files = {path for _, path in layers.others.values()} | {layer.file for layer in layers.linear}
    opened = {path: safe_open(path, framework="pt") for path in files}
    done = list(work.rows)
    for name, (_, path) in layers.others.items():
        if done:
            break  # they come first
        tensor = opened[path].get_tensor(name)
        check_finite(name, tensor)
        writer.write(name, tensor)
    yield from done
    for layer in layers.linear[len(done) :]:
        stored = opened[layer.file].get_slice(f"{layer.name}.weight")
        row = {
            "name": layer.name,
            "layout": layer.layout.name if layer.layout else layer.dtype,
            "why": layer.why,
            "bytes": layer.nbytes,
        }
        row["snr"] = _write_layer(writer, layer, stored, seen.get(layer.name))
        writer.flush()
        work.add(row)
        malloc.trim_heap()
        tell({"type": "layer", **row})
        yield row


def _write_layer(writer: SafetensorsWriter, layer: Layer, stored: Any, seen: ActivationStats | None) -> float | None:
    """Write one layer; returns the signal-to-noise ratio of its weight in dB, None if plain."""
    import torch

    from dit_tools.nn.packed import restore
    from dit_tools.nn.quantizers import snr

    if layer.layout is None:
        for piece in _pieces(layer, stored, rowwise=True):
            check_finite(layer.name, piece)
            writer.write(f"{layer.name}.weight", piece)
        return None
    packer = layer.packer
    signal = noise = 0.0
    companions: dict[str, list[Any]] = {}
    for weight in _pieces(layer, stored, True) if packer.rowwise else [_whole(layer, stored)]:
        layout = replace(layer.layout, rows=len(weight))
        for rows in row_blocks(layout):
            check_finite(layer.name, weight[rows])
        weight = weight.float()
        made = packer.pack(weight, layout, seen)
        writer.write(f"{layer.name}.packed", made["packed"])
        for rows in row_blocks(layout):
            some = {key: tensor[rows] if key in ROWWISE else tensor for key, tensor in made.items()}
            exact = weight[rows]
            signal += float(exact.square().sum())
            found = restore(some, replace(layout, rows=len(exact), rank=0))
            if layout.rank:  # maybe more than there are rows here
                found += some["up"].float() @ some["down"].float()
            lost = found - exact
            noise += float(lost.square().sum())
        for key in made.keys() - {"packed"}:
            companions.setdefault(key, []).append(made[key])
    for key in [key for key in layer.layout.tensors() if key != "packed"]:
        writer.write(f"{layer.name}.{key}", torch.cat(companions[key]))
    return snr(signal, noise)


ROWWISE = ("packed", "scale", "zero", "up")
"""Tensors of a packed layer with a row for each of the weight's."""


def _pieces(layer: Layer, stored: Any, rowwise: bool) -> Iterator[Any]:
    """The weight as stored, whole or some rows at a time."""
    step = max(BLOCK_WEIGHTS // layer.columns, 1) if rowwise else layer.rows
    for start in range(0, layer.rows, step):
        yield stored[start : start + step]


def _whole(layer: Layer, stored: Any) -> Any:
    """The weight in float32, with no second copy of it on the way."""
    import torch

    made = torch.empty(layer.rows, layer.columns)
    start = 0
    for piece in _pieces(layer, stored, rowwise=True):
        made[start : start + len(piece)] = piece
        start += len(piece)
    return made


def check_finite(name: str, tensor: Any) -> None:
    """Raise ModelError for a tensor with NaN or infinity."""
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ModelError(f"{name}: holds NaN or infinity", "repair the model first")


# what the folder says of itself -----------------------------------------------------------------


def _write_config(folder: Path, wanted: QuantizeConfig, layers: Layers) -> None:
    path = folder / quantized.PART / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config[quantized.KEY] = {
        "quant_method": quantized.METHOD,
        "version": quantized.VERSION,
        "scheme": spec.format(wanted.scheme),
        "layers": {name: layout.to_json() for name, layout in layers.packed().items()},
    }
    kernels = wanted.target.partition(":")[0]
    if kernels != "folder":
        config[quantized.KEY]["kernels"] = kernels
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def facts(source: Any, wanted: QuantizeConfig, layers: Layers) -> dict[str, Any]:
    """What ``quantize.json`` says before anything is measured."""
    from dit_tools import __version__

    return {
        "dit_quantize": 1,
        "dit": __version__,
        "model": source.name,
        "revision": source.revision,
        "target": wanted.target,
        "scheme": spec.format(wanted.scheme),
        "keep": list(wanted.keep),
        "bytes": layers.nbytes,
        "ratio": round(layers.ratio, 5),
    }


def card(facts: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the safetensors file: what was made of what, how, and what it cost."""
    names = ("model", "revision", "target", "scheme", "ratio", "verdict")
    return {f"dit.{name}": json.dumps(facts[name]) for name in names if name in facts}


def update_hashes(folder: Path, graphs: bool = False) -> None:
    """State the new files in a built-in model's ``dit.json``.

    ``graphs``: the model's own are still there, else the size that they serve is dropped.
    """
    from dit_tools.tasks.export.builtin import write_facts

    facts = validation.read_json(folder / "dit.json")
    gone = ("revision",) if graphs else ("revision", "onnx_size")
    write_facts(folder, {k: v for k, v in facts.items() if k not in gone})
