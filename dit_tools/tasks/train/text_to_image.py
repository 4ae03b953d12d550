"""Stage 3: a latent flow-matching transformer and its text encoder, trained together.

Rectified flow: ``x_t = (1 - t) x_0 + t noise``, target velocity ``noise - x_0``, squared error,
``t = sigmoid(N(0, 1))`` (logit-normal, Esser et al. 2024, Sec. 3.1), and whatever objectives the
recipe names. The weights that are kept are an exponential moving average. Saved as a
PixArtSigmaPipeline that plain diffusers loads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast

from dit_tools.core.errors import ModelError
from dit_tools.methods.objectives import NetworkInfo
from dit_tools.models.loading.pipeline_folder import quiet
from dit_tools.tasks.train import checkpoint, dataset, latents, losses, recolour, tokenizer
from dit_tools.tasks.train.denoisers import FLOW, NetworksDenoise
from dit_tools.tasks.train.networks import Networks, pipeline, sample_sheet, tokenize
from dit_tools.tasks.train.optimizers import muon_and_adamw
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.small_variant import Shared
from dit_tools.tasks.train.trainer import Batch, Subject, Trainer
from dit_tools.tasks.train.training_run import TrainingRun, check_space

SHEET_PROMPTS = (
    "red heart",
    "cat face",
    "pizza",
    "red apple",
    "dog face",
    "yellow star",
    "house",
    "red car",
    "sun",
    "rocket",
    "smiling face",
    "birthday cake",
    "tree",
    "guitar",
    "fish",
    "umbrella",
    "green apple",
    "crown",
    "soccer ball",
    "airplane",
    "frog",
    "robot",
    "flat pizza",
    "flat cat face",
    "blue apple",
    "purple dog face",
    "green house",
    "blue guitar",
    "pink car",
    "black cat face",
    "flower",
    "moon",
)


@dataclass
class Examples:
    """What batches are drawn from."""

    latents: torch.Tensor
    captions: list[dataset.Caption]
    probabilities: np.ndarray
    words: PreTrainedTokenizerFast


class TextToImage(Subject):
    """Networks, optimizers and moving average of a new text-to-image model.

    ``data``: the images, uint8 (N, 4, H, W). The text encoder of ``shared`` is not trained; its
    ``start`` is what the transformer begins with. ``vae`` and ``prompts`` are for samples.
    Raises ModelError when ``start`` has other sizes.
    """

    stage = "transformer"
    checkpoint_name = "transformer.pt"
    compiles = True
    path = FLOW

    def __init__(
        self,
        recipe: Recipe,
        session: TrainingRun,
        examples: Examples,
        data: np.ndarray,
        shared: Shared | None = None,
        vae: Any = None,
        prompts: Sequence[str] = (),
    ):
        r = recipe.transformer
        self.recipe, self.session, self.examples, self.data = recipe, session, examples, data
        self.settings, self.vae, self.prompts = r, vae, prompts
        self.steps = r.samples // r.batch_size
        torch.manual_seed(recipe.seed)
        frozen = shared.text_encoder if shared else None
        self.networks = Networks(recipe, len(examples.words), frozen).to(session.device)
        self.frozen = frozen is not None
        if shared and shared.start is not None:
            self._begin(shared.start)
        trained = [self.networks.text_encoder] * (not self.frozen) + [self.networks.transformer]
        self.optimizers = muon_and_adamw(trained, r.learning_rate, r.muon_learning_rate)
        self.averaged: Any = AveragedModel(self.networks, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay))
        self.denoise = NetworksDenoise(self.networks)
        self.teacher = NetworksDenoise(self.averaged.module)

    def _begin(self, start: dict[str, Any]) -> None:
        name = self.recipe.transformer.start_from
        try:
            self.networks.transformer.load_state_dict(start)
        except RuntimeError:
            raise ModelError(
                f"start_from = {name!r}: its transformer has other sizes",
                "give the recipe its width, heads, layers and patch_size",
            ) from None

    def network(self) -> NetworkInfo:
        """Sizes of the recipe's transformer."""
        r = self.recipe.transformer
        grid = self.recipe.side // r.patch_size
        return NetworkInfo(r.width, r.layers, grid, r.patch_size, lambda: self.data, self.session.device)

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """Those of text encoder and transformer; a frozen text encoder's have no gradients."""
        return [*self.networks.parameters()]

    def batch(self, step: int, terms: losses.Terms) -> Batch:
        """The recipe's batch ``step``, on the device."""
        made, device = draw_batch(self.recipe, step, self.examples, terms), self.session.device
        condition = {key: value.to(device) for key, value in made.condition.items()}
        return Batch(made.rows, made.x0.to(device), condition, made.t.to(device), made.noise.to(device))

    def context(self) -> AbstractContextManager[Any]:
        """Plain products in attention on a CPU: below some thirty tokens they are faster there."""
        return sdpa_kernel(SDPBackend.MATH) if self.session.device == "cpu" else nullcontext()

    def average(self) -> None:
        """Let the moving average follow."""
        self.averaged.update_parameters(self.networks)

    def state_dict(self) -> dict[str, Any]:
        """Networks and their average."""
        return {"networks": self.networks.state_dict(), "average": self.averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them. Raises ValueError when a sibling's model is not the one that it began with."""
        if self.frozen:
            for name, tensor in self.networks.text_encoder.state_dict().items():
                if not torch.equal(state["networks"][f"text_encoder.{name}"], tensor):
                    raise ValueError("other text encoder")
        self.networks.load_state_dict(state["networks"])
        self.averaged.load_state_dict(state["average"])

    def size(self) -> int:
        """Bytes of a checkpoint: weights, their average, and two moments."""
        return 16 * sum(p.numel() for p in self.networks.parameters())

    def show(self, step: int) -> None:
        """Write the pipeline as it is now, and a sheet of samples."""
        run, words, networks = self.session.run, self.examples.words, self.averaged.module
        self.vae.to(self.session.device)
        made = sample_sheet(networks, self.vae, words, self.recipe, self.prompts)
        path = run / f"sheet-{step:06d}.png"
        made.save(path)
        with quiet():
            whole = pipeline(self.recipe, words, networks, self.vae)
            checkpoint.save_folder(run / "pipeline", whole.save_pretrained)
        self.session.tell({"type": "sample", "path": str(path), "step": step})


def train(recipe: Recipe, session: TrainingRun, vae: Any, shared: Shared | None = None) -> tuple[int, int]:
    """Train, or resume, and write the pipeline folder ``run/pipeline``.

    ``shared``: what a sibling takes from its model, frozen. Returns the steps made and the steps in
    all. Raises Interrupted when the user stopped it, Diverged, ModelError for a foreign checkpoint,
    InputError for data or disk.
    """
    run = session.run
    tell = session.tell if shared else lambda event: None  # otherwise told with the autoencoder
    data, captions = dataset.read_dataset(recipe.data, skin_tones=False, tell=tell)
    named = captions
    if recipe.data.recoloured:
        data, captions = recolour.add_recoloured(data, captions, recipe.data, recipe.seed)
    with session.team.first():
        words = shared.words if shared else _tokenizer(recipe, run, named)
        made = latents.cached_latents(run, vae, data, shared and shared.cache, session.team.leads)
    examples = Examples(made, captions, dataset.sampling_weights(captions, recipe.data), words)
    subject = TextToImage(recipe, session, examples, data, shared, vae, sheet_prompts(recipe, named))
    trainer = Trainer(subject, recipe.seed, session)
    check_space(run, subject.size())
    trainer.resume()
    finished = trainer.step >= min(trainer.steps, session.stop or trainer.steps)
    if finished and session.team.leads and not (run / "pipeline").exists():
        subject.show(trainer.step)
    trainer.run()
    return trainer.step, trainer.steps


def sheet_prompts(recipe: Recipe, captions: list[dataset.Caption]) -> list[str]:
    """What samples show: the emoji of every edition, or captions of the user's images."""
    if recipe.data.captions:
        return list(SHEET_PROMPTS)
    every = sorted({caption.name for caption in captions})
    return every[:: -(-len(every) // 16)]


def _tokenizer(recipe: Recipe, run: Path, captions) -> PreTrainedTokenizerFast:
    if not (run / "tokenizer").exists():
        texts = [c.name for c in captions] * 4 + [", ".join(c.keywords) for c in captions]
        texts += [word for words in recipe.data.style_words.values() for word in words] * 500
        made = tokenizer.train(texts, recipe.tokenizer.vocab_size, recipe.text_encoder.max_tokens)
        checkpoint.save_folder(run / "tokenizer", made.save_pretrained)
    return PreTrainedTokenizerFast.from_pretrained(run / "tokenizer")


def draw_batch(recipe: Recipe, step: int, examples: Examples, chosen: losses.Terms) -> Batch:
    """Batch ``step`` of the run, on the CPU; depends on nothing but seed, step and objectives."""
    r, captions = recipe.transformer, examples.captions
    rng, choice = np.random.default_rng([recipe.seed, step]), random.Random(f"{recipe.seed}-{step}")
    rows = rng.choice(len(captions), size=r.batch_size, p=examples.probabilities)
    prompts = [
        "" if choice.random() < r.prompt_dropout else dataset.prompt(captions[row], recipe.data, choice) for row in rows
    ]
    ids, mask = tokenize(examples.words, prompts)
    x0 = examples.latents[torch.from_numpy(rows)]
    # Stratified times: one per 1/B slice of the unit interval, for a quieter loss.
    uniform = (rng.permutation(r.batch_size) + rng.random(r.batch_size)) / r.batch_size
    t = chosen.times(torch.from_numpy(uniform))
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    return Batch(rows, x0, {"ids": ids, "mask": mask}, t, noise)
