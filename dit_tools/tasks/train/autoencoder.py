"""Stage 1: a small deterministic autoencoder in diffusers' AutoencoderKL format.

Loss: L1 and L2 on brightness, two differences of colour and opacity, L1 on their spatial
differences and on their means over 8 x 8 pixels, with Gaussian noise added to the latents so that
the decoder forgives what the transformer gets slightly wrong. Errors of red, green and blue apart
leave a short run almost blind to green against magenta, which is a small part of their sum.

After training the per-channel mean and deviation of the latents are folded into ``quant_conv`` and
``post_quant_conv``, so that latents are unit normal with ``scaling_factor`` 1 and no other file
needs their statistics.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d

from dit_tools.core.errors import ModelError
from dit_tools.tasks.train import checkpoint, dataset, losses
from dit_tools.tasks.train.optimizers import Optimizers, factor, is_kernel, muon_and_adamw
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.training_run import Interrupted, Meter, TrainingRun, check_loss, check_space

CHECKPOINT = "vae.pt"
COLOURS = (
    (0.299, 0.587, 0.114, 0.0),  # brightness (Rec. 601)
    (-1.0, 2.0, -1.0, 0.0),  # green against magenta: the smallest variance, hence the largest weight
    (0.75, 0.0, -0.75, 0.0),  # red against blue
    (0.0, 0.0, 0.0, 1.0),  # opacity
)
COARSE = 8  # pixels: flat colours are most of a drawing
WARMUP, DECAY = 100, 0.5  # steps; part of the run


def build_autoencoder(recipe: Recipe) -> Any:
    """The untrained autoencoder of the recipe."""
    a = recipe.autoencoder
    levels, channels = len(a.channels), cast(Any, a.channels)
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=cast(Any, ("DownEncoderBlock2D",) * levels),
        up_block_types=cast(Any, ("UpDecoderBlock2D",) * levels),
        block_out_channels=channels,
        layers_per_block=a.layers_per_block,
        latent_channels=a.latent_channels,
        norm_num_groups=a.norm_num_groups,
        sample_size=recipe.data.size,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def loss(model: Any, x: torch.Tensor, recipe: Recipe, spread: Any = None) -> torch.Tensor:
    """Reconstruction loss of a batch ``x`` in [-1, 1], shape (B, 4, H, W).

    ``spread``: the term of variance expansion, or None for latent noise of a fixed size.
    """
    posterior = model.encode(x).latent_dist
    z, more = posterior.mean, None
    noise = torch.randn_like(z)
    if spread is None:
        y = model.decode(z + recipe.autoencoder.latent_noise * z.detach().std() * noise).sample
    else:
        drawn, more = spread.latents(z, posterior.logvar, noise)
        y = model.decode(drawn).sample
    error = (y - x).float()
    seen = torch.einsum("ij,bjhw->bihw", error.new_tensor(COLOURS), error)
    rows, columns = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    size = 1e-4 * z.float().square().mean()
    coarse = avg_pool2d(seen, COARSE, ceil_mode=True).abs().mean()
    pixels = seen.abs().mean() + seen.square().mean() + recipe.autoencoder.coarse_weight * coarse
    value = pixels + recipe.autoencoder.gradient_weight * (rows + columns) + size
    return value if more is None else value + more


def train_autoencoder(recipe: Recipe, session: TrainingRun) -> Any:
    """Train, or resume, and return the finished autoencoder; saved as ``run/vae``.

    Raises Interrupted when the user stopped it, or ``session.stop`` steps were made; Diverged;
    InputError for data or disk.
    """
    run, team = session.run, session.team
    if (run / "vae").exists():
        return AutoencoderKL.from_pretrained(run / "vae")
    team.check(recipe.autoencoder.batch_size, "[autoencoder]")
    spread = _spread(recipe)
    torch.manual_seed(recipe.seed)
    data, _ = dataset.read_dataset(recipe.data, skin_tones=True, tell=session.tell)
    a = recipe.autoencoder
    model = build_autoencoder(recipe).to(session.device, memory_format=torch.channels_last)
    check_space(run, 12 * sum(p.numel() for p in model.parameters()))
    optimizers = muon_and_adamw([model], a.learning_rate, a.muon_learning_rate, is_kernel, 0.01)
    steps = a.pictures // a.batch_size
    first = _resume(session, model, optimizers)
    meter = Meter(session, "autoencoder", first, steps, a.batch_size)
    # Not compiled: torch 2.13's CPU inductor returned zero gradients for this encoder.
    for step in range(first, steps):
        x = _batch(data, a.batch_size, np.random.default_rng([recipe.seed, step]))
        with session.autocast():
            value = loss(model, team.share(x).to(session.device), recipe, spread)
        value.backward()
        team.average(model.parameters())
        value = team.mean(value.detach())
        check_loss(value.item(), "autoencoder", step + 1)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(factor(step, steps, WARMUP, DECAY))
        meter.advance({"reconstruction": value})
        leave = session.interrupted or step + 1 == session.stop
        if (step + 1) % (2 * session.save_every) == 0 or step + 1 == steps or leave:
            _save(session, step + 1, model, optimizers)
            meter.log(psnr=psnr(model, data[::97]))
        if leave and step + 1 < steps:
            raise Interrupted
    normalize(model, data)
    if team.leads:
        checkpoint.save_folder(run / "vae", model.save_pretrained)
    return model


def _spread(recipe: Recipe) -> Any:
    """The term of variance expansion when the recipe has it and it does something."""
    chosen = losses.parse_objectives(recipe.autoencoder.objectives, "autoencoder")
    found = [each.begin(None) for each in chosen]
    return found[0] if found and found[0].hooks else None


def _save(session: TrainingRun, step: int, model: Any, optimizers: Optimizers) -> None:
    """Write the checkpoint, with the state of the random numbers that the loss draws."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": optimizers.state_dict(),
        "random": torch.get_rng_state(),
    }
    if session.device.startswith("cuda"):
        state["random_cuda"] = torch.cuda.get_rng_state(session.device)
    session.save(CHECKPOINT, state)


def _resume(session: TrainingRun, model: Any, optimizers: Optimizers) -> int:
    path = session.run / CHECKPOINT
    state = checkpoint.load_checkpoint(path)
    if state is None:
        return 0
    try:
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
    except (KeyError, ValueError, RuntimeError):
        raise ModelError(f"{path}: made by another recipe", "restore the recipe, or add --overwrite") from None
    if "random" in state:
        torch.set_rng_state(state["random"])
    if "random_cuda" in state and session.device.startswith("cuda"):
        torch.cuda.set_rng_state(state["random_cuda"], session.device)
    return state["step"]


def _batch(data: np.ndarray, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Random images, half of them mirrored, shifted by up to 6 pixels over transparent white."""
    x = data[rng.integers(len(data), size=size)]
    x = np.where(rng.random((size, 1, 1, 1)) < 0.5, x, x[..., ::-1])
    edge = np.array([255, 255, 255, 0], np.uint8)[None, :, None, None]
    padded = np.broadcast_to(edge, (size, 4, x.shape[2] + 12, x.shape[3] + 12)).copy()
    padded[:, :, 6:-6, 6:-6] = x
    offsets = rng.integers(13, size=(size, 2))
    height, width = x.shape[2:]
    x = np.stack([p[:, i : i + height, j : j + width] for p, (i, j) in zip(padded, offsets, strict=True)])
    return to_tensor(x)


def to_tensor(x: np.ndarray) -> torch.Tensor:
    """uint8 (B, 4, H, W) to float in [-1, 1]."""
    return (torch.from_numpy(x).float() / 127.5 - 1).to(memory_format=torch.channels_last)


@torch.no_grad()
def encode(model: Any, data: np.ndarray, batch_size: int = 64) -> torch.Tensor:
    """Latents (N, C, h, w) of uint8 images."""
    parts = [data[i : i + batch_size] for i in range(0, len(data), batch_size)]
    device = next(model.parameters()).device
    made = [model.encode(to_tensor(part).to(device)).latent_dist.mean for part in parts]
    return torch.cat(made).cpu()


@torch.no_grad()
def psnr(model: Any, data: np.ndarray) -> float:
    """Reconstruction PSNR in dB of uint8 images, over the three colour channels on white."""
    device = next(model.parameters()).device
    y = model.decode(encode(model, data).to(device)).sample.clamp(-1, 1).cpu()
    error = (y - to_tensor(data))[:, :3].square().mean(dim=(1, 2, 3)) / 4
    return round((-10 * torch.log10(error)).mean().item(), 2)


@torch.no_grad()
def normalize(model: Any, data: np.ndarray) -> None:
    """Fold the latents' per-channel statistics into the 1x1 convolutions around the latent."""
    z = encode(model, data)
    before, after = model.quant_conv, model.post_quant_conv
    mean = z.mean(dim=(0, 2, 3)).to(before.weight.device)
    std = z.std(dim=(0, 2, 3)).to(before.weight.device)
    channels = len(mean)
    before.weight[:channels] /= std[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / std
    before.weight[channels:] = 0  # logvar: a constant, very small variance
    before.bias[channels:] = -20.0
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(dim=1)
    after.weight *= std[None, :, None, None]
