"""The image-text model: a small image and text encoder that never saw the generator, for ``dit eval``.

``tools/train_clip.py dit_tools/models/clip64/recipe.toml`` trains it on real images with their
names and keywords (symmetric InfoNCE, Radford et al. 2021, Fig. 3) and writes ``picture.onnx``,
``text.onnx`` and ``judge.json``. One tenth of the images is held out; the retrieval on those is
the ceiling that generated images are compared with.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dit_tools.models.clip import BUCKETS, buckets
from dit_tools.nn.clip import PictureEncoder
from dit_tools.tasks.train import checkpoint, dataset
from dit_tools.tasks.train.recipe import Data

HELD_OUT = 10  # one image in ten
SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class ClipRecipe:
    """What decides the outcome of the run, apart from the images."""

    captions: str
    styles: tuple[str, ...]
    size: int
    widths: tuple[int, int]
    blocks: tuple[int, int]
    features: int
    batch_size: int
    pictures: int
    learning_rate: float
    seed: int


class TextEncoder(nn.Module):
    """Hashed n-gram counts (B, BUCKETS) to unit features (B, F)."""

    def __init__(self, recipe: ClipRecipe):
        super().__init__()
        self.embed = nn.Linear(BUCKETS, 2 * recipe.features, bias=False)
        self.head = nn.Linear(2 * recipe.features, recipe.features)
        nn.init.normal_(self.embed.weight, std=0.05)

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """A bag of word pieces, one hidden layer, of length 1."""
        return functional.normalize(self.head(functional.gelu(self.embed(counts))), dim=-1)


class Clip(nn.Module):
    """Both encoders and the temperature of their comparison."""

    def __init__(self, recipe: ClipRecipe):
        super().__init__()
        self.picture = PictureEncoder(recipe.widths, recipe.blocks, recipe.features)
        self.text = TextEncoder(recipe)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def loss(self, seen: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Symmetric InfoNCE over a batch of distinct concepts."""
        scale = self.log_scale.clamp(max=4.6).exp()
        logits = scale * self.picture(seen).float() @ self.text(counts).float().mT
        target = torch.arange(len(logits))
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.mT, target)) / 2


def load_recipe(path: Path) -> ClipRecipe:
    """Read the recipe."""
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return ClipRecipe(**{key: _frozen(value) for key, value in table.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def train_clip(recipe: ClipRecipe, run: Path, stop: int | None = None) -> dict[str, Any]:
    """Train, or resume, and write the graphs and ``judge.json`` to ``run``; returns the facts.

    ``stop`` ends this session after that many steps in all.
    """
    data = Data(recipe.captions, recipe.styles, recipe.size, {}, {}, {})
    images, captions = dataset.read_dataset(data, skin_tones=False)
    held = np.random.default_rng(recipe.seed).permutation(len(images)) % HELD_OUT == 0
    concepts: dict[str, list[int]] = {}
    for row in np.flatnonzero(~held):
        concepts.setdefault(captions[row].name, []).append(int(row))
    torch.manual_seed(recipe.seed)
    judge: Any = Clip(recipe)
    judge.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), recipe.learning_rate, weight_decay=0.05)
    first, state = 0, checkpoint.load_checkpoint(run / "judge.pt")
    if state is not None:
        judge.load_state_dict(state["judge"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    steps, start = recipe.pictures // recipe.batch_size, time.time()
    for step in range(first, min(steps, stop or steps)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 100, 2 * (1 - step / steps))
        seen, counts = _batch(recipe, step, images, captions, concepts)
        with torch.autocast("cpu", torch.bfloat16):
            value = judge.loss(seen, counts)
        value.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"step": step + 1, "judge": judge.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save_checkpoint(run / "judge.pt", state)
            rate = (step + 1 - first) * recipe.batch_size / (time.time() - start)
            found = retrieval(judge, images[held], [c.name for c, h in zip(captions, held, strict=True) if h])
            line = {"step": step + 1, "loss": round(value.item(), 4), "retrieval": round(found, 3)}
            print(json.dumps(line | {"images_per_second": round(rate, 1)}), flush=True)
    return _write(judge, recipe, run, images, captions, held)


def _batch(recipe: ClipRecipe, step: int, images, captions, concepts):
    """Batch ``step``: distinct concepts, one image of each, a little disturbed."""
    rng = random.Random(f"{recipe.seed}-{step}")
    rows = [rng.choice(concepts[name]) for name in rng.sample(list(concepts), recipe.batch_size)]
    texts = []
    for row in rows:
        few = rng.sample(captions[row].keywords, min(len(captions[row].keywords), 2))
        draw = rng.random()
        name = captions[row].name
        texts.append(name if draw < 0.6 or not few else " ".join([name, *few]) if draw < 0.8 else " ".join(few))
    seen = torch.from_numpy(images[rows][:, :3]).float() / 255
    dx, dy = rng.randint(-5, 5), rng.randint(-5, 5)
    seen = functional.pad(seen, (6, 6, 6, 6), value=1.0)
    seen = seen[:, :, 6 + dy : 6 + dy + recipe.size, 6 + dx : 6 + dx + recipe.size]
    if rng.random() < 0.5:
        seen = seen.flip(-1)
    if rng.random() < 0.5:  # generated images are soft: what they show must count, not edges
        seen = functional.avg_pool2d(seen, 3, 1, 1, count_include_pad=False)
    seen = (seen + 0.02 * torch.randn(seen.shape)).to(memory_format=torch.channels_last)
    return seen, torch.from_numpy(buckets(texts))


@torch.no_grad()
def retrieval(judge: Clip, images: np.ndarray, names: list[str], among: int = 100) -> float:
    """Share of images (N, 4, S, S) whose own name is the nearest of ``among`` random ones."""
    from dit_tools.models.clip import share_found

    seen = torch.from_numpy(images[:, :3]).float() / 255
    features = torch.cat([judge.picture(part) for part in seen.split(128)]).numpy()
    texts = judge.text(torch.from_numpy(buckets(names))).numpy()
    return share_found(features, texts, names, among)


def _write(judge: Clip, recipe: ClipRecipe, run: Path, images, captions, held) -> dict[str, Any]:
    run.mkdir(parents=True, exist_ok=True)
    judge.eval()
    image, counts = torch.rand(2, 3, recipe.size, recipe.size), torch.rand(2, BUCKETS)
    for name, module, given in (
        ("picture", judge.picture, {"pictures": image}),
        ("text", judge.text, {"counts": counts}),
    ):
        (argument, example), *_ = given.items()
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracing exporter is called deprecated
            torch.onnx.export(
                module,
                (example,),
                str(run / f"{name}.onnx"),
                input_names=[argument],
                output_names=["features"],
                opset_version=17,
                dynamo=False,
                dynamic_axes={argument: {0: "batch"}, "features": {0: "batch"}},
            )
        _half(run / f"{name}.onnx")
    names = [captions[row].name for row in np.flatnonzero(held)]
    facts = {
        "size": recipe.size,
        "features": recipe.features,
        "styles": recipe.styles,
        "pictures": int((~held).sum()),
        "held_out": int(held.sum()),
        "held_out_retrieval": round(retrieval(judge, images[held], names), 4),
    }
    (run / "judge.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _half(path: Path) -> None:
    """Store the graph's weights in half precision, followed by casts: half the size."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    casts = []
    for entry in model.graph.initializer:
        value = numpy_helper.to_array(entry)
        if value.dtype != np.float32:
            continue
        name = entry.name
        entry.CopyFrom(numpy_helper.from_array(value.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=1))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    onnx.save(model, path)
