"""The training of an adapter on a finished model of any family, from captioned images.

Training on the model's own path and prediction: squared error of what the network says natively
(velocity, noise or v) and the recipe's objectives. Times are logit-normal on the flow path, uniform
steps otherwise. Every image has a time of its own. Those of a step go through a small network
together where that gives what they give alone (``collate``), and one by one otherwise; their
gradients are summed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.methods.objectives import NetworkInfo
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import LoadOptions, load
from dit_tools.models.loading.lora import ADAPTER
from dit_tools.models.model import Model
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.train import collate, dataset, losses
from dit_tools.tasks.train.denoisers import AveragedDenoise, ModelDenoise, ParameterAverage
from dit_tools.tasks.train.optimizers import adamw
from dit_tools.tasks.train.recipe import REPETITIONS, Adapter, Recipe
from dit_tools.tasks.train.trainer import Batch, Subject, Trainer
from dit_tools.tasks.train.training_run import TrainingRun, check_space

SHOWN = 8  # images of a sheet


@dataclass
class Examples:
    """Latents (N, C, ...), captions, and conditions by caption once they were encoded.

    ``images``: the same as pixels, uint8 (N, 4, H, W), for objectives that look at them.
    """

    latents: torch.Tensor
    captions: list[dataset.Caption]
    probabilities: np.ndarray
    images: np.ndarray
    conditions: dict[str, Any] = field(default_factory=dict)


class AdapterSubject(Subject):
    """A model with an adapter attached, and the optimizer of the adapter alone."""

    stage = "adapter"
    checkpoint_name = "adapter.pt"
    settings: Adapter
    denoise: ModelDenoise

    def __init__(self, recipe: Recipe, session: TrainingRun, model: Model, examples: Examples):
        a = recipe.adapter
        self.recipe, self.session, self.model, self.examples = recipe, session, model, examples
        self.settings, self.path = a, model.path
        samples = a.samples or REPETITIONS * int((examples.probabilities > 0).sum())
        self.steps = max(samples // a.batch_size, 1)
        network: Any = model.network
        self.module = network.module
        self.attached = spec.parse("adapters", a.method).attach(self.module, network.blocks(), recipe.seed)
        self.trained: list[torch.nn.Parameter] = self.attached.parameters()
        for parameter in self.trained:
            parameter.data = parameter.data.float()
        self.optimizers = adamw(self.trained, a.learning_rate)
        self.denoise = ModelDenoise(model)
        self.averaged = ParameterAverage(self.trained, a.ema_decay) if a.ema_decay else None
        self.teacher = AveragedDenoise(self.denoise, self.averaged) if self.averaged else None
        self.together = None if collate.fits(self.module) else False  # None: not tried yet

    def network(self) -> NetworkInfo:
        """What the first block shows in one call: its class, and how wide its image tokens are."""
        from dit_tools.nn.feature_capture import capture_output, image_tokens

        family, latents = self.model.family, self.examples.latents[:1]
        tokens, blocks, store = family.tokens(latents.shape), self.denoise.blocks, {}
        grid = round(tokens**0.5)
        condition = [self.condition(self.examples.captions[0].name)]
        half = torch.full((1,), 0.5, dtype=torch.float64, device=latents.device)
        with torch.no_grad(), capture_output(blocks[0].module, store, "hidden", stop=True):
            self.denoise(latents, half, condition)
        return NetworkInfo(
            image_tokens(blocks[0], store["hidden"], tokens).shape[-1],
            len(blocks),
            grid,
            latents.shape[-1] // grid,
            lambda: self.examples.images,
            self.session.device,
            self.path,
            type(blocks[0].module).__name__,
            self.teacher is not None,
        )

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """The adapter's."""
        return self.trained

    def batch(self, step: int, terms: losses.Terms) -> Batch:
        """The recipe's batch ``step``."""
        a, examples = self.settings, self.examples
        rng = np.random.default_rng([self.recipe.seed, step])
        choice = random.Random(f"{self.recipe.seed}-{step}")
        rows = rng.choice(len(examples.captions), size=a.batch_size, p=examples.probabilities)
        uniform = (rng.permutation(a.batch_size) + rng.random(a.batch_size)) / a.batch_size
        texts = []
        for row in rows:
            text = dataset.prompt(examples.captions[row], self.recipe.data, choice)
            texts.append("" if choice.random() < a.prompt_dropout else text)
        x0 = examples.latents[torch.from_numpy(rows)]
        noise = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32)).to(x0)
        t = terms.times(torch.from_numpy(uniform)).to(x0.device)
        return Batch(rows, x0, [self.condition(text) for text in texts], t, noise)

    def parts(self, batch: Batch) -> list[slice]:
        """All at once, or each image alone."""
        count = len(batch.rows)
        alone = [slice(i, i + 1) for i in range(count)]
        if self.together is False or count == 1:
            return alone
        inputs = self.denoise.inputs(batch.x0, batch.t, batch.condition)
        if not collate.joins(inputs):
            return alone
        if self.together is None:
            self.together = collate.agrees(self.model.network, inputs)
        return [slice(None)] if self.together else alone

    def average(self) -> None:
        """Let the moving average follow, where there is one."""
        if self.averaged:
            self.averaged.update()

    def state_dict(self) -> dict[str, Any]:
        """The adapter's parameters, their average, and what they belong to."""
        return {
            "method": self.settings.method,
            "model": self.model.revision,
            "parameters": [p.detach() for p in self.trained],
            "average": [self.averaged.count, *self.averaged.values] if self.averaged else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them. Raises ValueError for another method, model or kind of average."""
        if (state["method"], state["model"]) != (self.settings.method, self.model.revision):
            raise ValueError("other method or model")
        if bool(state["average"]) != bool(self.averaged):
            raise ValueError("with and without average")
        for parameter, saved in zip(self.trained, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        if self.averaged:
            self.averaged.count, *saved = state["average"]
            for value, own in zip(self.averaged.values, saved, strict=True):
                value.copy_(own)

    def condition(self, text: str) -> Any:
        """What the text encoders give for a prompt, kept."""
        known = self.examples.conditions
        if text not in known:
            size = self.recipe.data.size
            branch = "cond" if text else "uncond"  # not every family takes an empty prompt
            filler = text or self.examples.captions[0].name
            asked = ConditionRequest((filler,), ("",), Size.square(size), ("cond", branch))
            known[text] = self.model.encode(asked)[branch]
        return known[text]

    def show(self, step: int) -> None:
        """Write a sheet of samples with the adapter as it is now."""
        from PIL import Image

        model, size = self.model, self.recipe.data.size
        every = sorted({caption.name for caption in self.examples.captions})
        texts = every[:: -(-len(every) // SHOWN)]
        plan = _plan(model)
        image = Image.new("RGB", (len(texts) * size, size))
        with self.averaged.in_place() if self.averaged else nullcontext():
            for i, text in enumerate(texts):
                sampler = Sampler(model, plan, (size, size))
                noise = sampler.noise([0])
                with torch.no_grad():
                    *_, last = sampler.sample(noise.fresh(), sampler.conditions(sampler.request([text])), noise)
                pixels = model.codec.decode(last.x)[0, :3].transpose(1, 2, 0)
                image.paste(Image.fromarray((pixels * 255).round().astype(np.uint8)), (i * size, 0))
        path = self.session.run / f"sheet-{step:06d}.png"
        image.save(path)
        self.session.tell({"type": "sample", "path": str(path), "step": step})

    def write(self, step: int) -> Path:
        """``run/NAME.safetensors``, with what it is in its metadata."""
        from safetensors.torch import save_file

        from dit_tools.jobs.atomic import atomic_path

        facts = {"method": self.settings.method, "model": self.model.name, "step": step}
        lora = spec.parse("adapters", self.settings.method).info.name == "lora"
        about = {"dit" if lora else ADAPTER: json.dumps(facts)}  # one key: several have no fixed order
        path = self.session.run / f"{self.recipe.name}.safetensors"
        with self.averaged.in_place() if self.averaged else nullcontext():
            tensors = self.attached.tensors()
        if self.session.team.leads:
            with atomic_path(path) as part:
                save_file(tensors, part, about)
        return path


def train(recipe: Recipe, session: TrainingRun) -> Path | None:
    """Train, or resume; the file of the finished adapter, or None when it stopped early.

    Raises Interrupted when the user stopped it, Diverged, UnsupportedError for a model without an
    adapter in dit, ModelError for a foreign checkpoint, InputError for data or disk.
    """
    gpu = session.device.startswith("cuda") and session.dtype == "bfloat16"
    wishes = LoadOptions(device=session.device, dtype="bfloat16" if gpu else "float32", backend="torch")
    model = load(recipe.adapter.model, wishes)
    if model.pipeline is not None:
        raise UnsupportedError(f"{model.name}: no family of dit", "choose a model that has one")
    subject = AdapterSubject(recipe, session, model, read_examples(recipe, session, model))
    check_space(session.run, 12 * sum(p.numel() for p in subject.trained))
    trainer = Trainer(subject, recipe.seed, session)
    trainer.resume()
    trainer.run()
    return subject.write(trainer.step) if trainer.step == trainer.steps else None


def read_examples(recipe: Recipe, session: TrainingRun, model: Model) -> Examples:
    """The recipe's images as latents. Raises UsageError for a size that the model cannot take."""
    size = recipe.data.size
    model.family.latent_shape(Size.square(size))
    data, captions = dataset.read_dataset(recipe.data, skin_tones=False, tell=session.tell)
    layers = data if model.alpha else data[:, :3]
    parts = [model.codec.encode(layers[i : i + 8].astype(np.float32) / 255) for i in range(0, len(layers), 8)]
    found = torch.cat([torch.as_tensor(part) for part in parts]).float().to(session.device)
    return Examples(found, captions, dataset.sampling_weights(captions, recipe.data), data)


def _plan(model: Model) -> Plan:
    """How a model samples where nobody says anything."""
    guidance = f"{model.family.default_guidance}:scale={model.defaults.cfg}"
    return Plan.parse(
        model.defaults.steps,
        {
            "schedule": model.defaults.schedule,
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": guidance if model.defaults.cfg > 1 else "none",
            "cache": "none",
        },
    )
