"""``--target gguf``: a model's folder with its transformer in one GGUF file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.models.loading import gguf_file, gguf_loader, quantized
from dit_tools.tasks.export import model_folder
from dit_tools.tasks.quantize import packed_folder, quantize, resume
from dit_tools.tasks.quantize.layers import Layer, Layers

ARCHITECTURE = "diffusers"
ALIGNMENT = 32  # GGUF's own, where a file names no other


def make_gguf(source: Any, wanted: packed_folder.QuantizeConfig, target: Any, trial: Any, tell: Any) -> dict[str, Any]:
    """Write ``wanted.output``; returns its facts. Raises as ``run.write`` does."""
    layers = packed_folder.preflight(source, wanted)
    asked = quantize.request(source, wanted, trial, spec.format(target))
    with resume.workplace(wanted.output, wanted.overwrite, asked) as work:
        full, layers, seen = quantize.learn_layers(source, wanted, trial, layers, tell, work)
        folder = work.folder
        model_folder.copy_files(packed_folder.other_files(source.path), source.path, folder)
        path = folder / quantized.PART / gguf_loader.FILE
        path.parent.mkdir(exist_ok=True)
        rows = list(_write(path, source, layers, seen, target.type, tell, work))
        size = path.stat().st_size
        told = packed_folder.facts(source, wanted, layers) | {
            "target": spec.format(target),
            "bytes": size,
            "ratio": round(size / (4 * layers.numbers), 5),
        }
        told |= quantize.measure_quality(source, full, trial)(folder)
        text = json.dumps(told | {"layers": rows}, indent=1) + "\n"
        (folder / packed_folder.FACTS_FILE).write_text(text, encoding="utf-8")
        if (folder / "dit.json").exists():
            packed_folder.update_hashes(folder)
    return told | {"layers": rows}


def kinds(layers: Layers, type_: str) -> dict[str, str]:
    """Name of each linear layer -> its GGUF type."""
    return {layer.name: _kind(layer, type_) for layer in layers.linear}


def _kind(layer: Layer, type_: str) -> str:
    if layer.layout is None or layer.columns % gguf_loader.BLOCK:
        return "F16"
    return "Q8_0" if layer.why == "fallback" and type_ != "F16" else type_


def _write(
    path: Path, source: Any, layers: Layers, seen: Mapping[str, Any], type_: str, tell: Any, work: resume.Work
) -> Iterator[dict[str, Any]]:
    """Write the file tensor by tensor; yields a line of the table per linear layer."""
    from safetensors import safe_open

    gguf = gguf_file.library()
    chosen = kinds(layers, type_)
    shapes = {n: (entry[1], "F32" if len(entry[1]) < 2 else "F16") for n, (entry, _) in layers.others.items()}
    for layer in layers.linear:
        shapes[f"{layer.name}.weight"] = (layer.rows, layer.columns), chosen[layer.name]
    head, sizes = _header(work.scratch / "head.gguf", source, layers.kind, shapes)
    files = {path for _, path in layers.others.values()} | {layer.file for layer in layers.linear}
    opened = {file: safe_open(file, framework="pt") for file in files}
    done = list(work.rows) if path.is_file() else []
    work.rows[:] = done
    skipped = len(layers.others) + len(done) if done else 0
    with _Data(path, head, sizes[:skipped]) as data:
        for name, (_, file) in layers.others.items():
            if done:
                break  # they come first
            data.write(_plain(opened[file].get_tensor(name), name, shapes[name][1]))
        yield from done
        for layer in layers.linear[len(done) :]:
            kind = chosen[layer.name]
            weight = opened[layer.file].get_tensor(f"{layer.name}.weight")
            packed_folder.check_finite(layer.name, weight)
            blocks = _blocks(layer, weight.float(), kind, seen, gguf)
            data.write(blocks)
            back = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
            row = {
                "name": layer.name,
                "layout": kind,
                "why": layer.why,
                "bytes": blocks.nbytes,
                "snr": _snr(weight.float().numpy(), back),
            }
            data.flush()
            work.add(row)
            tell({"type": "layer", **row})
            yield row


class _Data:
    """Tensors behind a header. ``done``: bytes of those that an interrupted run has written."""

    def __init__(self, path: Path, head: bytes, done: Sequence[int]):
        self._file = path.open("r+b" if done else "wb")
        if not done:
            self._file.write(head)
        self._file.seek(len(head) + sum(_padded(size) for size in done))
        self._file.truncate()

    def __enter__(self) -> _Data:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def write(self, array: Any) -> None:
        """Append a numpy array, filled up to the alignment."""
        self._file.write(array.tobytes())
        self._file.write(bytes(_padded(array.nbytes) - array.nbytes))

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _header(scratch: Path, source: Any, kind: str, shapes: Mapping[str, tuple[Any, str]]) -> tuple[bytes, list[int]]:
    """The file up to its first tensor, by the library, and the bytes of every tensor."""
    gguf = gguf_file.library()
    writer = gguf.GGUFWriter(scratch, ARCHITECTURE)
    writer.add_name(source.name)
    writer.add_string("dit.model", kind)
    writer.add_string("dit.revision", source.revision)
    sizes = [_announce(writer, gguf, name, shape, type_) for name, (shape, type_) in shapes.items()]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = scratch.read_bytes()
    return head + bytes(_padded(len(head)) - len(head)), sizes


def _announce(writer: Any, gguf: Any, name: str, shape: tuple[int, ...], kind: str) -> int:
    """Put a tensor into the header; returns its bytes."""
    import numpy as np

    known = gguf.GGMLQuantizationType[kind]
    if kind in ("F16", "F32"):
        dtype = np.float16 if kind == "F16" else np.float32
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, shape, np.dtype(dtype), size)
        return size
    bytes_ = gguf.quant_shape_to_byte_shape(shape, known)
    size = int(np.prod(bytes_))
    writer.add_tensor_info(name, bytes_, np.dtype(np.uint8), size, raw_dtype=known)
    return size


def _plain(tensor: Any, name: str, kind: str) -> Any:
    packed_folder.check_finite(name, tensor)
    return (tensor.half() if kind == "F16" else tensor.float()).contiguous().numpy()


def _blocks(layer: Layer, weight: Any, kind: str, seen: Mapping[str, Any], gguf: Any) -> Any:
    """A weight's bytes (rows, bytes): a scheme's codes in Q4_0, else by the library."""
    if kind == "F16":
        return weight.half().contiguous().numpy()
    fits = layer.layout is not None and layer.layout.bits == 4
    if kind == "Q4_0" and fits and layer.packer.calibration and layer.layout is not None:
        made = layer.packer.pack(weight, layer.layout, seen.get(layer.name))
        return gguf_loader.blocks_of(made, layer.rows, layer.columns, kind)
    return gguf.quantize(weight.contiguous().numpy(), gguf.GGMLQuantizationType[kind])


def _snr(weight: Any, back: Any) -> float | None:
    from dit_tools.nn.quantizers import snr

    noise = ((back.reshape(weight.shape).astype("float32") - weight) ** 2).sum()
    return None if not noise else snr(float((weight**2).sum()), float(noise))
