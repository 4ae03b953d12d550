"""Stage 3: a latent flow-matching transformer and its text encoder, trained together.

Rectified flow: ``x_t = (1 - t) x_0 + t noise``, target velocity ``noise - x_0``, squared error,
``t = sigmoid(N(0, 1))`` (logit-normal, Esser et al. 2024, Sec. 3.1), and whatever objectives the
recipe names. The weights that are kept are an exponential moving average. Saved as a
PixArtSigmaPipeline that plain diffusers loads.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast

from dit_tools.core.errors import ModelError
from dit_tools.methods.objectives import Setting, View
from dit_tools.models.loading.torch_loader import quiet
from dit_tools.tasks.train import checkpoint, dataset, latents, losses, recolour, tokenizer
from dit_tools.tasks.train.networks import Networks, pipeline, sheet, tokenize
from dit_tools.tasks.train.optimizers import Optimizers, factor
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.session import Interrupted, Session, check_loss, check_space
from dit_tools.tasks.train.small_variant import Shared

CHECKPOINT = "transformer.pt"
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


def loss(networks: Networks, x0, ids, mask, t, noise) -> torch.Tensor:
    """Flow-matching loss of a batch."""
    at = t[:, None, None, None]
    velocity = networks((1 - at) * x0 + at * noise, t, ids, mask)
    return (velocity.float() - (noise - x0)).square().mean()


class Trainer:
    """Networks, optimizers, moving average and objectives of a run.

    ``data``: the pictures, uint8 (N, 4, H, W). The text encoder of ``shared`` is not trained; its
    ``start`` is what the transformer begins with. Raises ModelError when that has other sizes.
    """

    def __init__(
        self, recipe: Recipe, session: Session, examples: Examples, data: np.ndarray, shared: Shared | None = None
    ):
        r = recipe.transformer
        self.recipe, self.session, self.examples = recipe, session, examples
        self.steps = r.samples // r.batch_size
        chosen = losses.parse(r.objectives, "transformer")
        torch.manual_seed(recipe.seed)
        frozen = shared.text_encoder if shared else None
        self.networks = Networks(recipe, len(examples.words), frozen).to(session.device)
        self.frozen = frozen is not None
        if shared and shared.start is not None:
            self._begin(shared.start)
        trained = [self.networks.text_encoder] * (not self.frozen) + [self.networks.transformer]
        self.optimizers = Optimizers(trained, r.learning_rate, r.muon_learning_rate)
        self.average: Any = AveragedModel(self.networks, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay))
        setting = Setting(
            r.width, r.layers, r.heads, recipe.side // r.patch_size, r.patch_size, lambda: data, session.device
        )
        session.team.check(r.batch_size, "[transformer]")
        self.terms = losses.Terms(chosen, setting, recipe.seed, r.learning_rate, session.team)
        self.plain = torch.compile(loss) if session.compiling else loss
        self.step = 0

    def _begin(self, start: dict[str, Any]) -> None:
        name = self.recipe.transformer.start_from
        try:
            self.networks.transformer.load_state_dict(start)
        except RuntimeError:
            raise ModelError(
                f"start_from = {name!r}: its transformer has other sizes",
                "give the recipe its width, heads, layers and patch_size",
            ) from None

    def resume(self) -> None:
        """Go on from the run's checkpoint. Raises ModelError when it is of another recipe."""
        path = self.session.run / CHECKPOINT
        if (state := checkpoint.load(path, self.session.device)) is None:
            return
        try:
            self._check_frozen(state["networks"])
            self.networks.load_state_dict(state["networks"])
            self.average.load_state_dict(state["average"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.terms.load_state_dict(state.get("objectives", {}))
        except (KeyError, ValueError, RuntimeError):
            raise ModelError(f"{path}: made by another recipe", "restore the recipe, or add --overwrite") from None
        self.step = state["step"]

    def _check_frozen(self, saved: dict[str, torch.Tensor]) -> None:
        """Raise ValueError when the model of a sibling is not the one that it began with."""
        if self.frozen:
            for name, tensor in self.networks.text_encoder.state_dict().items():
                if not torch.equal(saved[f"text_encoder.{name}"], tensor):
                    raise ValueError("other text encoder")

    def save(self) -> None:
        """Write the run's checkpoint."""
        state = {
            "step": self.step,
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }
        if more := self.terms.state_dict():
            state["objectives"] = more
        self.session.save(CHECKPOINT, state)

    def size(self) -> int:
        """Bytes of a checkpoint: weights, their average, and two moments."""
        return 16 * sum(p.numel() for p in self.networks.parameters())

    def advance(self) -> float:
        """One step; returns its loss."""
        r, team = self.recipe.transformer, self.session.team
        rows, *batch = draw(self.recipe, self.step, self.examples, self.terms)
        x0, ids, mask, t, noise = (part.to(self.session.device) for part in batch)
        noise = self.terms.couple(x0, noise, self.step)
        rows, x0, ids, mask, t, noise = map(team.share, (rows, x0, ids, mask, t, noise))
        view = View(self.networks, self.average.module, x0, ids, mask, t, noise, rows, self.step, self.steps)
        # Below some thirty tokens, plain products are faster on a CPU than its flash attention.
        cpu = self.session.device == "cpu"
        with sdpa_kernel(SDPBackend.MATH) if cpu else contextlib.nullcontext():
            with self.session.autocast():
                if self.terms.hooks:
                    value = self.terms.loss(view)
                else:
                    value = self.plain(self.networks, x0, ids, mask, t, noise)
            value.backward()
        team.average(self.networks.parameters())
        number = team.mean(value.detach()).item()
        check_loss(number, "transformer", self.step + 1)
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        scale = factor(self.step, self.steps, r.warmup_steps, r.decay_fraction)
        self.optimizers.step(scale)
        self.terms.step(scale)
        self.average.update_parameters(self.networks)
        self.terms.observe(number, view)
        self.step += 1
        return number


def train(recipe: Recipe, session: Session, vae: Any, shared: Shared | None = None) -> tuple[int, int]:
    """Train, or resume, and write the pipeline folder ``run/pipeline``.

    ``shared``: what a sibling takes from its model, frozen. Returns the steps made and the steps in
    all. Raises Interrupted when the user stopped it, Diverged, ModelError for a foreign checkpoint,
    InputError for data or disk.
    """
    run = session.run
    tell = session.tell if shared else lambda event: None  # else told with the autoencoder
    data, captions = dataset.read(recipe.data, dataset.data_root(), skin_tones=False, tell=tell)
    named = captions
    if recipe.data.recoloured:
        data, captions = recolour.add(data, captions, recipe.data, recipe.seed)
    with session.team.first():
        words = shared.words if shared else _tokenizer(recipe, run, named)
        made = latents.cached(run, vae, data, shared and shared.cache, session.team.leads)
    examples = Examples(made, captions, dataset.weights(captions, recipe.data), words)
    trainer = Trainer(recipe, session, examples, data, shared)
    check_space(run, trainer.size())
    trainer.resume()
    end = min(trainer.steps, session.stop or trainer.steps)
    start, first, running = time.time(), trainer.step, []
    prompts = sheet_prompts(recipe, named)
    if trainer.step >= end and not (run / "pipeline").exists():
        _show(trainer, vae, prompts)
    while trainer.step < end:
        running.append(trainer.advance())
        done, leave = trainer.step, session.interrupted
        if done % session.save_every == 0 or done == end or leave:
            trainer.save()
            rate = (done - first) * recipe.transformer.batch_size / (time.time() - start)
            session.log(
                {
                    "type": "step",
                    "stage": "transformer",
                    "step": done,
                    "steps": trainer.steps,
                    "loss": round(sum(running) / len(running), 4),
                    "pictures_per_second": round(rate, 1),
                }
            )
            running = []
        if done % session.sample_every == 0 or done == end:
            _show(trainer, vae, prompts)
        if leave and done < end:
            raise Interrupted
    return trainer.step, trainer.steps


def _show(trainer: Trainer, vae: Any, prompts: list[str]) -> None:
    """Write the pipeline as it is now, and a sheet of samples."""
    if not trainer.session.team.leads:
        return
    run, words, networks = trainer.session.run, trainer.examples.words, trainer.average.module
    vae.to(trainer.session.device)
    made = sheet(networks, vae, words, trainer.recipe, prompts)
    path = run / f"sheet-{trainer.step:06d}.png"
    made.save(path)
    with quiet():
        whole = pipeline(trainer.recipe, words, networks, vae)
        checkpoint.save_folder(run / "pipeline", whole.save_pretrained)
    trainer.session.tell({"type": "sample", "path": str(path), "step": trainer.step})


def sheet_prompts(recipe: Recipe, captions: list[dataset.Caption]) -> list[str]:
    """What samples show: the emoji of every edition, or captions of the user's pictures."""
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


def draw(recipe: Recipe, step: int, examples: Examples, chosen: losses.Terms):
    """Rows and batch ``step`` of the run; depends on nothing but seed, step and objectives."""
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
    return rows, x0, ids, mask, t, noise
