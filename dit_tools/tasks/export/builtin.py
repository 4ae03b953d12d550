"""A trained pipeline folder becomes a built-in model: half-precision weights, graphs, facts.

``tools/release.py`` does this for the models that come with dit, and adds the graphs in int8 and in pieces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dit_tools.models.backends.onnx_split import Subgraphs
from dit_tools.models.onnx_session import open_session
from dit_tools.tasks.export import fused, subgraphs
from dit_tools.tasks.export.model_folder import whole_folder
from dit_tools.tasks.export.shared_weights import attach_weights
from dit_tools.tasks.export.simplify import TRACED_BATCH, fold_constants, free_batch
from dit_tools.tasks.export.trace import trace

Examples = Callable[[int], dict[str, Any]]
"""``examples(batch)``: random inputs of a graph, by name."""

FREE = ("text_encoder",)
"""Graphs traced with a free batch: transformers builds masks from one index per image."""

TOLERANCE = 1e-3  # largest difference to torch, relative to the output's range


def export(
    source: Path, folder: Path, facts: dict[str, Any], documents: dict[str, str] | None = None
) -> dict[str, float]:
    """Write the built-in model ``folder``; returns each graph's difference to torch.

    ``documents``: file name -> text of what else belongs into the folder (card, notices). A folder
    that is there is replaced when all is done.
    """
    import torch
    from diffusers import PixArtSigmaPipeline

    torch.manual_seed(0)
    pipe = PixArtSigmaPipeline.from_pretrained(source)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.half()
    with whole_folder(folder, overwrite=True) as made:
        pipe.save_pretrained(made)
        _forget_source(made)
        _compute_in_float32(made / "text_encoder/config.json")
        for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
            part.float()
        errors = {
            name: _graph(made, name, *arguments) for name, arguments in _graphs(pipe, facts["max_tokens"]).items()
        }
        for name, text in (documents or {}).items():
            (made / name).write_text(text, encoding="utf-8")
        write_facts(made, {"name": folder.name, **facts})
    return errors


def _forget_source(folder: Path) -> None:
    """Leave out where diffusers read the parts from: a path of the machine that made the model."""
    for path in (folder / "model_index.json", *folder.glob("*/*config.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        if table.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _compute_in_float32(config: Path) -> None:
    """Say that the half-precision weights are meant for float32, as diffusers' own parts assume.

    transformers would otherwise compute in the dtype of the file, and plain loading would fail.
    """
    table = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _graphs(pipe: Any, max_tokens: int) -> dict[str, tuple[Any, Examples, str, str]]:
    """Graph name -> (module, its inputs at a batch size, output name, weight file)."""
    import torch

    side, channels = pipe.transformer.config.sample_size, pipe.transformer.config.in_channels
    pixels = pipe.vae.config.sample_size
    width, words = pipe.text_encoder.config.d_model, pipe.text_encoder.config.vocab_size

    def mask(batch: int) -> Any:
        made = torch.ones(batch, max_tokens, dtype=torch.long)
        made[1:, max_tokens // 2 :] = 0
        return made

    class Encoder(torch.nn.Module):
        def forward(self, pixels):
            latents = pipe.vae.config.latent_channels
            return pipe.vae.quant_conv(pipe.vae.encoder(pixels))[:, :latents]

    class Decoder(torch.nn.Module):
        def forward(self, latents):
            return pipe.vae.decoder(pipe.vae.post_quant_conv(latents))

    encoder, decoder = Encoder(), Decoder()
    for module, parts in ((encoder, ("encoder", "quant_conv")), (decoder, ("decoder", "post_quant_conv"))):
        for part in parts:
            setattr(module, part, getattr(pipe.vae, part))
    context, denoiser = fused.parts(pipe.transformer)
    blocks = len(pipe.transformer.transformer_blocks)
    inner = pipe.transformer.config.num_attention_heads * pipe.transformer.config.attention_head_dim
    weights = "diffusion_pytorch_model.safetensors"
    return {
        "text_encoder": (
            pipe.text_encoder,
            lambda batch: {"input_ids": torch.randint(3, words, (batch, max_tokens)), "attention_mask": mask(batch)},
            "hidden",
            "text_encoder/model.safetensors",
        ),
        "transformer": (
            denoiser,
            lambda batch: {
                "context": torch.randn(batch, 2 * blocks, max_tokens, inner),
                "hidden_states": torch.randn(batch, channels, side, side),
                "timestep": torch.rand(batch) * 1000,
                "encoder_attention_mask": mask(batch),
            },
            "sample",
            f"transformer/{weights}",
        ),
        "transformer.context": (
            context,
            lambda batch: {"encoder_hidden_states": torch.randn(batch, max_tokens, width)},
            fused.CONTEXT,
            f"transformer/{weights}",
        ),
        "vae_decoder": (
            decoder,
            lambda batch: {"latents": torch.randn(batch, channels, side, side)},
            "pixels",
            f"vae/{weights}",
        ),
        "vae_encoder": (
            encoder,
            lambda batch: {"pixels": torch.rand(batch, 4, pixels, pixels)},
            "latents",
            f"vae/{weights}",
        ),
    }


def _graph(folder: Path, name: str, module: Any, examples: Examples, output: str, weights: str) -> float:
    import torch

    path, inputs = folder / f"{name}.onnx", examples(TRACED_BATCH)
    names = {*inputs, output}
    if name in FREE:
        trace(module, inputs, output, path, {key: {0: "batch"} for key in names}, weights=False)
    else:
        trace(module, inputs, output, path, {}, fused.OPSET, weights=False)
        fused.finish_graph(path)
        fold_constants(path, path)
        free_batch(path, names)
    module.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    )
    if attach_weights(path, module, [folder / weights]).shared == 0:
        raise RuntimeError(f"{name}: no initializer was found in {weights}")
    with torch.no_grad():
        return max(_difference(path, module, examples(batch)) for batch in (1, 2, 3))


def add_subgraphs(folder: Path, max_tokens: int) -> float:
    """Write a built-in model's transformer in pieces as well; returns the difference to torch.

    ``dit.json`` does not list them yet.
    """
    import torch
    from diffusers import PixArtSigmaPipeline

    torch.manual_seed(0)
    pipe = PixArtSigmaPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    module, examples, output, weights = _graphs(pipe, max_tokens)["transformer"]
    transformer = pipe.transformer
    whole, inputs = folder / f"{subgraphs.WHOLE}.onnx", examples(TRACED_BATCH)
    names = subgraphs.names_of(transformer, lambda: module(**inputs))
    with subgraphs.mark_blocks(module, transformer) as marked:
        trace(marked, inputs, [output, *names], whole, {}, fused.OPSET, weights=False)
    fused.finish_graph(whole)
    fold_constants(whole, whole)
    free_batch(whole, {*inputs, output})
    attach_weights(whole, module, [folder / weights])
    subgraphs.cut_graph(whole, names, transformer)
    run = Subgraphs(open_session, folder)
    with torch.no_grad():
        return max(_differs(whole.name, run, module, examples(batch)) for batch in (1, 2, 3))


def _difference(path: Path, module: Any, inputs: dict[str, Any]) -> float:
    """Largest difference of the graph to torch, relative to the output's range."""
    session = open_session(path)
    return _differs(path.name, lambda feeds: session.run(None, feeds)[0], module, inputs)


def _differs(name: str, run: Callable[..., Any], module: Any, inputs: dict[str, Any]) -> float:
    import numpy as np
    import torch

    expected = module(**inputs)
    expected = (expected[0] if not isinstance(expected, torch.Tensor) else expected).numpy()
    got = run({key: value.numpy() for key, value in inputs.items()})
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error < TOLERANCE:
        raise RuntimeError(f"{name} differs from torch by {error:.2e}")
    return error


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``dit.json``: what is known of the model, its revision, and every file's digest."""
    files = {}
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "dit.json"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files[path.relative_to(folder).as_posix()] = {"sha256": digest, "size": path.stat().st_size}
    weights = [v["sha256"] for k, v in files.items() if k.endswith(".safetensors")]
    revision = hashlib.sha256("".join(weights).encode()).hexdigest()[:12]
    made = {"name": folder.name, **facts, "revision": revision, "files": files}
    (folder / "dit.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
