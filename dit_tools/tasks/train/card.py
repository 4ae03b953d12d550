"""The model card of a trained pipeline, and the facts that its export needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.tasks.train.recipe import Recipe

Rows = dict[str, list[dict[str, Any]]]
"""Lines of a run's log by stage."""


def write_card(folder: Path, recipe: Recipe, source: Path | None, rows: Rows, step: int) -> None:
    """Write ``README.md`` into a pipeline folder of that step."""
    (folder / "README.md").write_text(card_text(folder, recipe, source, rows, step), encoding="utf-8")


def card_text(folder: Path, recipe: Recipe, source: Path | None, rows: Rows, step: int) -> str:
    """The card: what it is, how it was made, what was measured, what nobody has said yet."""
    t, d = recipe.transformer, recipe.data
    steps = t.samples // t.batch_size
    loss = f", loss {rows['transformer'][-1]['loss']}" if rows.get("transformer") else ""
    lines = [
        f"# {recipe.name}",
        "",
        f"A text-to-image diffusion transformer for {d.size} px images with opacity, trained with dit {__version__}.",
        "",
        f"- **Transformer**: PixArtTransformer2DModel, {t.layers} blocks of width {t.width}, "
        f"{_millions(folder / 'transformer')}, {(recipe.side // t.patch_size) ** 2} tokens, "
        "flow matching.",
        f"- **Text encoder**: T5EncoderModel, {_millions(folder / 'text_encoder')}, at most "
        f"{recipe.text_encoder.max_tokens} tokens.",
        f"- **Autoencoder**: AutoencoderKL, {_millions(folder / 'vae')}, {d.size} px RGBA to "
        f"{recipe.side} x {recipe.side} x {recipe.autoencoder.latent_channels}.",
        "- **Loads with diffusers**: `DiffusionPipeline.from_pretrained(folder)`; call it with "
        f"`height={d.size}, width={d.size}, use_resolution_binning=False`.",
        "",
        "## Training",
        "",
        f"- Step {step} of {steps}, {step * t.batch_size:,} images seen{loss}.",
        f"- Objectives: {', '.join(t.objectives) or 'rectified flow, logit-normal times'}.",
    ]
    if t.sibling_of:
        other = Path(t.sibling_of)
        name = other.parent.name if other.name == "pipeline" else other.name
        lines.append(
            f"- Small sibling of {name}: its autoencoder, tokenizer and text encoder, not "
            "trained further; both transformers can share one run."
        )
    if rows.get("autoencoder"):
        lines.append(
            f"- Autoencoder: PSNR {rows['autoencoder'][-1]['psnr']} dB on some of the images it was trained on."
        )
    if source is not None:
        lines += ["", "## Recipe", "", "```toml", source.read_text("utf-8").rstrip(), "```"]
    lines += [
        "",
        "## Data, licence and limits",
        "",
        "Not stated: say here what the images are, what their licence allows, and what "
        "the model should not be used for.",
        "",
    ]
    return "\n".join(lines)


def _millions(part: Path) -> str:
    """Parameters of a part, from the headers of its safetensors files."""
    from dit_tools.models.loading import validation

    shapes = [e["shape"] for f in part.glob("*.safetensors") for e in validation.header(f).values()]
    count = sum(_product(shape) for shape in shapes)
    return f"{count / 1e6:.1f} M parameters" if count >= 1e5 else f"{count:,} parameters"


def _product(shape: list[int]) -> int:
    made = 1
    for number in shape:
        made *= number
    return made


def facts(recipe: Recipe) -> dict[str, Any]:
    """What ``dit.json`` of a built-in model states, for ``exporting.builtin.export``."""
    size = recipe.data.size
    table = {
        "title": recipe.name,
        "family": "pixart",
        "size": size,
        "onnx_size": [size, size],
        "max_tokens": recipe.text_encoder.max_tokens,
        "default_steps": 20,
        "default_cfg": 4.0,
        "solver": "dpmpp-2m",
        "schedule": "native",
        "alpha": True,
        "licence": "not stated",
    }
    return json.loads(json.dumps(table))
