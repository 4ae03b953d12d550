"""The training of an adapter on a finished model of any family, from a folder of pictures.

Plain training on the model's own path and prediction: ``x_t = alpha x_0 + sigma noise``, squared
error of what the network says natively (velocity, noise or v). Times are logit-normal on the flow
path, uniform steps otherwise. Every picture has a time of its own. Those of a step go through a
small network together where that gives what they give alone (``together``), else one by one; their
gradients are summed.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dit_tools.core import spec
from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.paths import VP
from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import Wishes, load
from dit_tools.models.loading.lora import ADAPTER
from dit_tools.models.model import Model
from dit_tools.sampling import loop
from dit_tools.tasks.train import checkpoint, collate, dataset
from dit_tools.tasks.train.optimizers import factor
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.session import Interrupted, Session, check_loss, check_space

CHECKPOINT = "adapter.pt"
LOOKS = 200  # how often every picture is seen where the recipe does not say
SHOWN = 8  # pictures of a sheet


@dataclass
class Examples:
    """Latents (N, C, h, w), captions, and conditions by caption once they were encoded."""

    latents: Any
    captions: list[dataset.Caption]
    probabilities: np.ndarray
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass
class Shot:
    """A picture's latents (1, C, h, w), the noise on it, its time and its prompt."""

    x0: Any
    noise: Any
    t: float
    text: str


class Tuner:
    """A model with an adapter attached, and the optimizer of the adapter alone."""

    def __init__(self, recipe: Recipe, session: Session, model: Model, examples: Examples):
        a = recipe.adapter
        self.recipe, self.session, self.model, self.examples = recipe, session, model, examples
        samples = a.samples or LOOKS * int((examples.probabilities > 0).sum())
        self.steps, self.step = max(samples // a.batch_size, 1), 0
        network: Any = model.network
        self.network = network.module
        self.attached = spec.parse("adapters", a.method).attach(self.network, network.blocks(), recipe.seed)
        self.trained = self.attached.parameters()
        for parameter in self.trained:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.trained, a.learning_rate, weight_decay=0.0)
        self.batches = None if collate.fits(self.network) else False  # may pictures go together?

    def save(self) -> None:
        """Write the run's checkpoint."""
        self.session.save(
            CHECKPOINT,
            {
                "step": self.step,
                "method": self.recipe.adapter.method,
                "model": self.model.revision,
                "parameters": [p.detach() for p in self.trained],
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def resume(self) -> None:
        """Go on from the checkpoint. Raises ModelError when it is of another recipe or model."""
        path = self.session.run / CHECKPOINT
        if (state := checkpoint.load(path, self.session.device)) is None:
            return
        try:
            if (state["method"], state["model"]) != (self.recipe.adapter.method, self.model.revision):
                raise ValueError
            for parameter, saved in zip(self.trained, state["parameters"], strict=True):
                parameter.data.copy_(saved)
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError, RuntimeError):
            raise ModelError(f"{path}: made by another recipe or model", "restore it, or add --overwrite") from None
        self.step = state["step"]

    def advance(self) -> float:
        """One step; returns its loss."""
        a, examples = self.recipe.adapter, self.examples
        rng = np.random.default_rng([self.recipe.seed, self.step])
        choice = random.Random(f"{self.recipe.seed}-{self.step}")
        rows = rng.choice(len(examples.captions), size=a.batch_size, p=examples.probabilities)
        uniform = (rng.permutation(a.batch_size) + rng.random(a.batch_size)) / a.batch_size
        shots = []
        for row, quantile in zip(rows, uniform, strict=True):
            text = dataset.prompt(examples.captions[row], self.recipe.data, choice)
            text = "" if choice.random() < a.prompt_dropout else text
            x0 = examples.latents[row : row + 1]
            noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)).to(x0)
            shots.append(Shot(x0, noise, self.time(float(quantile)), text))
        total = 0.0
        for part in self.parts(shots):
            with self.session.autocast():
                value = self.losses(part).sum() / a.batch_size
            value.backward()
            total += value.item()
        check_loss(total, "adapter", self.step + 1)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        scale = factor(self.step, self.steps, a.warmup_steps, a.decay_fraction)
        self.optimizer.param_groups[0]["lr"] = a.learning_rate * scale
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return total

    def time(self, quantile: float) -> float:
        """The time of a quantile in (0, 1)."""
        path = self.model.path
        if isinstance(path, VP):
            count = len(path.alphas_cumprod)
            return (min(int(quantile * count), count - 1) + 1) / count
        term = spec.parse("objectives", "logit-normal").begin(None)
        return float(term.times(torch.tensor([quantile], dtype=torch.float64)))

    def parts(self, shots: list[Shot]) -> list[list[Shot]]:
        """The pictures of a step as they go through the network: all at once, or each alone."""
        if self.batches is not False and collate.joins(inputs := self.inputs(shots)):
            if self.batches is None:  # once that was tried it is known
                self.batches = collate.agrees(self.model.network, inputs)
            if self.batches:
                return [shots]
        return [[shot] for shot in shots]

    def losses(self, shots: list[Shot]) -> torch.Tensor:
        """Squared errors (B) of the native prediction at each picture."""
        family, path = self.model.family, self.model.path
        raw = collate.call(self.model.network, self.inputs(shots))
        errors = []
        for shot, own in zip(shots, raw.float().split(1), strict=True):
            alpha, sigma = path.alpha(shot.t), path.sigma(shot.t)
            x0, noise = shot.x0, shot.noise
            found = family.read(own, alpha * x0 + sigma * noise, shot.t)
            targets = {"flow": noise - x0, "eps": noise, "v": alpha * noise - sigma * x0, "x0": x0}
            errors.append((found.raw - targets[found.kind]).square().mean())
        return torch.stack(errors)

    def inputs(self, shots: list[Shot]) -> list[dict[str, Any]]:
        """The network's arguments of each picture."""
        path, made = self.model.path, []
        for shot in shots:
            x = path.alpha(shot.t) * shot.x0 + path.sigma(shot.t) * shot.noise
            made.append(self.model.family.inputs(x, shot.t, self.condition(shot.text)))
        return made

    def condition(self, text: str) -> Any:
        """What the text encoders give for a prompt, kept."""
        kept = self.examples.conditions
        if text not in kept:
            size = self.recipe.data.size
            branch = "cond" if text else "uncond"  # not every family takes an empty prompt
            filler = text or self.examples.captions[0].name
            asked = ConditionRequest((filler,), ("",), Size.square(size), ("cond", branch))
            kept[text] = self.model.encode(asked)[branch]
        return kept[text]


def train(recipe: Recipe, session: Session) -> Path | None:
    """Train, or resume; the file of the finished adapter, or None when it stopped early.

    Raises Interrupted when the user stopped it, Diverged, UnsupportedError for a model without an
    adapter in dit, ModelError for a foreign checkpoint, InputError for data or disk.
    """
    gpu = session.device.startswith("cuda") and session.dtype == "bfloat16"
    wishes = Wishes(device=session.device, dtype="bfloat16" if gpu else "float32", backend="torch")
    model = load(recipe.adapter.model, wishes)
    if model.pipeline is not None:
        raise UnsupportedError(f"{model.name}: no family of dit", "choose a model with an adapter")
    examples = read(recipe, session, model)
    tuner = Tuner(recipe, session, model, examples)
    check_space(session.run, 12 * sum(p.numel() for p in tuner.trained))
    tuner.resume()
    end = min(tuner.steps, session.stop or tuner.steps)
    start, first, losses = time.time(), tuner.step, []
    while tuner.step < end:
        losses.append(tuner.advance())
        done, leave = tuner.step, session.interrupted
        if done % session.save_every == 0 or done == end or leave:
            tuner.save()
            rate = (done - first) * recipe.adapter.batch_size / (time.time() - start)
            session.log(
                {
                    "type": "step",
                    "stage": "adapter",
                    "step": done,
                    "steps": tuner.steps,
                    "loss": round(sum(losses) / len(losses), 4),
                    "pictures_per_second": round(rate, 1),
                }
            )
            losses = []
        if done % session.sample_every == 0 or done == tuner.steps:
            show(tuner)
        if leave and done < end:
            raise Interrupted
    return write(tuner) if tuner.step == tuner.steps else None


def read(recipe: Recipe, session: Session, model: Model) -> Examples:
    """The recipe's pictures as latents. Raises UsageError for a size that the model cannot take."""
    size = recipe.data.size
    model.family.latent_shape(Size.square(size))
    data, captions = dataset.read(recipe.data, dataset.data_root(), skin_tones=False, tell=session.tell)
    layers = data if model.alpha else data[:, :3]
    parts = [model.codec.encode(layers[i : i + 8].astype(np.float32) / 255) for i in range(0, len(layers), 8)]
    found = torch.cat([torch.as_tensor(part) for part in parts]).float().to(session.device)
    return Examples(found, captions, dataset.weights(captions, recipe.data))


def show(tuner: Tuner) -> None:
    """Write a sheet of samples with the adapter as it is now."""
    from PIL import Image

    model, size = tuner.model, tuner.recipe.data.size
    every = sorted({caption.name for caption in tuner.examples.captions})
    texts = every[:: -(-len(every) // SHOWN)]
    guidance = f"{model.family.default_guidance}:scale={model.defaults.cfg}"
    plan = Plan.parse(
        model.defaults.steps,
        {
            "schedule": model.defaults.schedule,
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": guidance if model.defaults.cfg > 1 else "none",
            "cache": "none",
        },
    )
    picture = Image.new("RGB", (len(texts) * size, size))
    for i, text in enumerate(texts):
        asked = ConditionRequest((text,), ("",), Size.square(size))
        x, noise = loop.start(model, plan, model.family.latent_shape(Size.square(size)), (0,))
        with torch.no_grad():
            *_, last = loop.sample(model, model.encode(asked), x, plan, noise)
        pixels = model.codec.decode(last.x)[0, :3].transpose(1, 2, 0)
        picture.paste(Image.fromarray((pixels * 255).round().astype(np.uint8)), (i * size, 0))
    path = tuner.session.run / f"sheet-{tuner.step:06d}.png"
    picture.save(path)
    tuner.session.tell({"type": "sample", "path": str(path), "step": tuner.step})


def write(tuner: Tuner) -> Path:
    """``run/NAME.safetensors``, with what it is in its metadata."""
    from safetensors.torch import save_file

    from dit_tools.jobs.atomic import atomic_path

    recipe = tuner.recipe
    facts = {"method": recipe.adapter.method, "model": tuner.model.name, "step": tuner.step}
    lora = spec.parse("adapters", recipe.adapter.method).info.name == "lora"
    about = {"dit" if lora else ADAPTER: json.dumps(facts)}  # one key: several have no fixed order
    path = tuner.session.run / f"{recipe.name}.safetensors"
    with atomic_path(path) as part:
        save_file(tuner.attached.tensors(), part, about)
    return path
