"""What a recipe would do, without doing it: images, steps, sizes, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dit_tools.models.loading import validation
from dit_tools.models.loading.resolve import builtin_names, resolve
from dit_tools.tasks.train import dataset, plot
from dit_tools.tasks.train.recipe import REPETITIONS, Recipe
from dit_tools.tasks.train.training_run import TrainingRun

FLOAT = 4  # bytes of a number in float32
KEPT = 5  # numbers a trained parameter: itself, its gradient, two moments, its average


def preview(recipe: Recipe, session: TrainingRun) -> dict[str, Any]:
    """The plan of a run, ready for JSON. Nothing is written and no network is built.

    ``images`` are those that can be used, ``stages`` has steps and batch size of each, ``done`` the
    steps that an earlier session made. ``memory_bytes`` is the least that is needed: parameters,
    gradients, optimizer, average, images and latents, without activations; None where the size of
    the model is not known on this machine. Raises InputError for missing data.
    """
    images, _ = dataset.read_dataset(recipe.data, skin_tones=False, tell=session.tell)
    found: dict[str, Any] = {
        "type": "plan",
        "name": recipe.name,
        "folder": str(session.run),
        "device": session.device,
        "dtype": session.dtype,
        "images": len(images),
        "size": recipe.data.size,
    }
    rows = plot.read_rows(session.run)
    about = _adapter(recipe, session, len(images)) if recipe.adapter.model else _networks(recipe)
    stages = {
        name: {"steps": steps, "batch_size": size, "done": rows[name][-1]["step"] if rows.get(name) else 0}
        for name, (steps, size) in about["stages"].items()
    }
    latents = FLOAT * len(images) * about["latents"]
    memory = None if about["bytes"] is None else about["bytes"] + images.nbytes + latents
    return found | {"stages": stages, "parameters": about["parameters"], "memory_bytes": memory}


def _networks(recipe: Recipe) -> dict[str, Any]:
    """A new model: counted on networks without storage, with as many words as the recipe asks for."""
    import torch

    from dit_tools.tasks.train import autoencoder
    from dit_tools.tasks.train.networks import Networks

    a, t = recipe.autoencoder, recipe.transformer
    stages = {"transformer": (t.samples // t.batch_size, t.batch_size)}
    with torch.device("meta"):
        parts = {"transformer": _count(Networks(recipe, recipe.tokenizer.vocab_size))}
        parts["autoencoder"] = _count(autoencoder.build_autoencoder(recipe))
    if not t.sibling_of:
        stages = {"autoencoder": (a.pictures // a.batch_size, a.batch_size), **stages}
    return {
        "stages": stages,
        "parameters": sum(parts.values()),
        "bytes": FLOAT * (KEPT * max(parts.values()) + min(parts.values())),
        "latents": a.latent_channels * recipe.side**2,
    }


def _adapter(recipe: Recipe, session: TrainingRun, images: int) -> dict[str, Any]:
    """An adapter: the frozen model's weights, counted in the headers of its files."""
    a = recipe.adapter
    samples = a.samples or REPETITIONS * images
    half = session.device.startswith("cuda") and session.dtype == "bfloat16"
    count = None
    if a.model in builtin_names() or Path(a.model).is_dir():
        files = resolve(a.model).path.rglob("*.safetensors")
        count = sum(_size(entry["shape"]) for file in files for entry in validation.header(file).values())
    return {
        "stages": {"adapter": (max(samples // a.batch_size, 1), a.batch_size)},
        "parameters": count,
        "bytes": None if count is None else count * (2 if half else FLOAT),
        "latents": 0,
    }


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def _size(shape: list[int]) -> int:
    made = 1
    for side in shape:
        made *= side
    return made


def lines(plan: dict[str, Any]) -> list[str]:
    """The plan in words."""
    stages = ", ".join(f"{name} {s['steps']:,} steps of {s['batch_size']} images" for name, s in plan["stages"].items())
    made = [
        f"would train {plan['name']} in {plan['folder']} on {plan['device']} in {plan['dtype']}",
        f"{plan['images']:,} images of {plan['size']} x {plan['size']} pixels; {stages}",
    ]
    if plan["memory_bytes"] is None:
        made.append("memory: not known, as the model is not a folder on this machine")
    else:
        memory = f"at least {plan['memory_bytes'] / 1e6:,.0f} MB of memory, and what activations take"
        made.append(f"{plan['parameters'] / 1e6:,.1f} M parameters; {memory}")
    done = [f"{name} at step {s['done']:,}" for name, s in plan["stages"].items() if s["done"]]
    return [*made, f"goes on with {', '.join(done)}"] if done else made
