"""Stage 3: a latent flow-matching transformer and its text encoder, trained together.

Rectified flow: ``x_t = (1 - t) x_0 + t noise``, target velocity ``noise - x_0``, squared error,
``t = sigmoid(N(0, 1))`` (logit-normal, Esser et al. 2024, Sec. 3.1). The weights that are kept are
an exponential moving average. Saved as a PixArtSigmaPipeline that plain diffusers loads.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dit_tools.training import autoencoder, checkpoint, pictures, tokenizer
from dit_tools.training.optimizers import Optimizers, factor
from dit_tools.training.recipe import Recipe

SAVE_EVERY = 50  # steps
SHEET_EVERY = 200
SHEET_PROMPTS = (
    "red heart", "cat face", "pizza", "red apple", "dog face", "yellow star", "house", "red car",
    "sun", "rocket", "smiling face", "birthday cake", "tree", "guitar", "fish", "umbrella",
    "green apple", "crown", "soccer ball", "airplane", "frog", "robot", "flat pizza",
    "flat cat face",
)  # fmt: skip


class Networks(torch.nn.Module):
    """Text encoder and transformer as one module, so that one call gives the velocity."""

    def __init__(self, recipe: Recipe, vocab_size: int):
        super().__init__()
        e, t = recipe.text_encoder, recipe.transformer
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=vocab_size,
                d_model=e.d_model,
                d_kv=e.d_model // e.heads,
                d_ff=2 * e.d_model,
                num_layers=e.layers,
                num_heads=e.heads,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                is_encoder_decoder=False,
                use_cache=False,
            )
        )
        side = recipe.data.size // 2 ** (len(recipe.autoencoder.channels) - 1)
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=t.heads,
            attention_head_dim=t.width // t.heads,
            in_channels=recipe.autoencoder.latent_channels,
            out_channels=recipe.autoencoder.latent_channels,
            num_layers=t.layers,
            cross_attention_dim=t.width,
            sample_size=side,
            patch_size=t.patch_size,
            caption_channels=e.d_model,
            norm_num_groups=1,
            use_additional_conditions=False,
        )
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Nearly closed residual branches and a zero velocity head, as DiT's adaLN-Zero has.

        The gates start at 0.05 instead of 0, so that Muon's hidden matrices learn from step one.
        """
        transformer: Any = self.transformer
        self.text_encoder.shared.weight.normal_(std=0.5)
        for block in transformer.transformer_blocks:
            block.scale_shift_table[2].fill_(0.05)  # gate of self-attention
            block.scale_shift_table[5].fill_(0.05)  # gate of the feed-forward part
            block.attn2.to_out[0].weight.zero_()
        for layer in (transformer.adaln_single.linear, transformer.proj_out):
            layer.weight.zero_()
            layer.bias.zero_()

    def forward(self, x: torch.Tensor, t: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor):
        """Velocity (B, C, h, w) at latents ``x``, times ``t`` (B,) in [0, 1], token ids (B, L)."""
        text = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return self.transformer(x, text, t * 1000, encoder_attention_mask=mask, return_dict=False)[
            0
        ]


def loss(networks: Networks, x0, ids, mask, t, noise) -> torch.Tensor:
    """Flow-matching loss of a batch."""
    at = t[:, None, None, None]
    velocity = networks((1 - at) * x0 + at * noise, t, ids, mask)
    return (velocity.float() - (noise - x0)).square().mean()


def train(
    recipe: Recipe, run: Path, vae: AutoencoderKL, compiling: bool = True, stop: int | None = None
) -> None:
    """Train, or resume, and write the pipeline folder ``run/pipeline``.

    ``stop`` ends this session after that many steps in all, as a kill after a checkpoint would.
    """
    data, captions = pictures.read(recipe.data, pictures.data_root(), skin_tones=False)
    words = _tokenizer(recipe, run, captions)
    latents = autoencoder.encode(vae, data)
    probabilities = pictures.weights(captions, recipe.data)
    torch.manual_seed(recipe.seed)
    networks = Networks(recipe, len(words))
    r = recipe.transformer
    optimizers = Optimizers(
        [networks.text_encoder, networks.transformer], r.learning_rate, r.muon_learning_rate
    )
    average: Any = AveragedModel(networks, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay))
    first = 0
    if (state := checkpoint.load(run / "transformer.pt")) is not None:
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        optimizers.load_state_dict(state["optimizers"])
        first = state["step"]
    compiled = torch.compile(loss) if compiling else loss
    steps = r.samples // r.batch_size
    start, running = time.time(), []
    for step in range(first, min(steps, stop or steps)):
        batch = _batch(recipe, step, latents, captions, probabilities, words)
        # Below some thirty tokens, plain products are faster on a CPU than its flash attention.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                value = compiled(networks, *batch)
            value.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizers.step(factor(step, steps, r.warmup_steps, r.decay_fraction))
        average.update_parameters(networks)
        running.append(value.item())
        done = step + 1
        if done % SAVE_EVERY == 0 or done in (steps, stop):
            rate = (done - first) * r.batch_size / (time.time() - start)
            line = {"step": done, "loss": round(sum(running) / len(running), 4)}
            print(json.dumps(line | {"pictures_per_second": round(rate, 1)}), flush=True)
            running = []
            state = {
                "step": done,
                "networks": networks.state_dict(),
                "average": average.state_dict(),
                "optimizers": optimizers.state_dict(),
            }
            checkpoint.save(run / "transformer.pt", state)
        if done % SHEET_EVERY == 0 or done in (steps, stop):
            pipeline(recipe, words, average.module, vae).save_pretrained(run / "pipeline")
            sheet(average.module, vae, words, recipe).save(run / f"sheet-{done:06d}.png")


def _tokenizer(recipe: Recipe, run: Path, captions) -> PreTrainedTokenizerFast:
    if not (run / "tokenizer").exists():
        texts = [c.name for c in captions] * 4 + [", ".join(c.keywords) for c in captions]
        texts += [word for words in recipe.data.style_words.values() for word in words] * 500
        made = tokenizer.train(texts, recipe.tokenizer.vocab_size, recipe.text_encoder.max_tokens)
        made.save_pretrained(run / "tokenizer")
    return PreTrainedTokenizerFast.from_pretrained(run / "tokenizer")


def _batch(recipe: Recipe, step: int, latents, captions, probabilities, words):
    """Batch ``step`` of the run; depends on nothing but the recipe's seed and the step."""
    r = recipe.transformer
    rng, choice = np.random.default_rng([recipe.seed, step]), random.Random(f"{recipe.seed}-{step}")
    rows = rng.choice(len(captions), size=r.batch_size, p=probabilities)
    prompts = [
        "" if choice.random() < r.prompt_dropout
        else pictures.prompt(captions[row], recipe.data, choice)
        for row in rows
    ]  # fmt: skip
    ids, mask = tokenize(words, prompts)
    x0 = latents[torch.from_numpy(rows)]
    # Stratified logit-normal times: one per 1/B slice of the unit interval, for a quieter loss.
    uniform = (rng.permutation(r.batch_size) + rng.random(r.batch_size)) / r.batch_size
    t = torch.sigmoid(torch.special.ndtri(torch.from_numpy(uniform).clamp(1e-4, 1 - 1e-4))).float()
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    return x0, ids, mask, t, noise


def tokenize(words, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (B, max_tokens), padded on the right."""
    out = words(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return out.input_ids, out.attention_mask


@torch.no_grad()
def sheet(networks: Networks, vae, words, recipe: Recipe, steps: int = 20, scale: float = 4.0):
    """A contact sheet of SHEET_PROMPTS by Euler steps and classifier-free guidance, seed 0."""
    count = len(SHEET_PROMPTS)
    transformer: Any = networks.transformer
    side, channels = transformer.config.sample_size, vae.config.latent_channels
    x = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    ids, mask = tokenize(words, list(SHEET_PROMPTS) + [""] * count)
    for i in range(steps):
        t = torch.full((2 * count,), 1 - i / steps)
        with_text, without = networks(torch.cat([x, x]), t, ids, mask).chunk(2)
        x = x - (without + scale * (with_text - without)) / steps
    y = ((vae.decode(x).sample[:, :3].clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    size = recipe.data.size
    picture = Image.new("RGB", (8 * size, -(-count // 8) * size))
    for i, tile in enumerate(y.numpy()):
        picture.paste(Image.fromarray(tile), (i % 8 * size, i // 8 * size))
    return picture


def pipeline(recipe: Recipe, words, networks: Networks, vae) -> PixArtSigmaPipeline:
    """The trained parts as a diffusers pipeline."""
    scheduler: Any = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0,
        final_sigmas_type="zero",
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=words,
        text_encoder=networks.text_encoder,
        vae=vae,
        transformer=networks.transformer,
        scheduler=scheduler,
    )
