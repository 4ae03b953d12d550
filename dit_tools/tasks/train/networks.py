"""The networks of the text-to-image stage, and the pipeline they become."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from PIL import Image
from transformers import T5Config, T5EncoderModel

from dit_tools.tasks.train.recipe import Recipe


class Networks(torch.nn.Module):
    """Text encoder and transformer as one module, so that one call gives the velocity.

    A given ``text_encoder`` is taken as it is; else a new one is made.
    """

    def __init__(self, recipe: Recipe, vocab_size: int, text_encoder: Any = None):
        super().__init__()
        e, t = recipe.text_encoder, recipe.transformer
        self.text_encoder = text_encoder or _new_text_encoder(recipe, vocab_size)
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=t.heads,
            attention_head_dim=t.width // t.heads,
            in_channels=recipe.autoencoder.latent_channels,
            out_channels=recipe.autoencoder.latent_channels,
            num_layers=t.layers,
            cross_attention_dim=t.width,
            sample_size=recipe.side,
            patch_size=t.patch_size,
            caption_channels=e.d_model,
            norm_num_groups=1,
            use_additional_conditions=False,
        )
        if text_encoder is None:
            self.text_encoder.shared.weight.data.normal_(std=0.5)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Nearly closed residual branches and a zero velocity head, as DiT's adaLN-Zero has.

        The gates start at 0.05 instead of 0, so that Muon's hidden matrices learn from step one.
        """
        transformer: Any = self.transformer
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
        return self.transformer(x, text, t * 1000, encoder_attention_mask=mask, return_dict=False)[0]


def _new_text_encoder(recipe: Recipe, vocab_size: int) -> Any:
    e = recipe.text_encoder
    return T5EncoderModel(
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


def tokenize(words, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (B, max_tokens), padded on the right."""
    out = words(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return out.input_ids, out.attention_mask


@torch.no_grad()
def sample_images(
    networks: Networks, vae, words, prompts, steps: int = 20, scale: float = 4.0, seed: int = 0
) -> torch.Tensor:
    """Images (N, 4, H, W) in [-1, 1] by Euler steps and classifier-free guidance."""
    count = len(prompts)
    device = next(networks.parameters()).device
    transformer: Any = networks.transformer
    side, channels = transformer.config.sample_size, vae.config.latent_channels
    x = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    x = x.to(device)
    ids, mask = tokenize(words, list(prompts) + [""] * count)
    ids, mask = ids.to(device), mask.to(device)
    for i in range(steps):
        t = torch.full((2 * count,), 1 - i / steps, device=device)
        with_text, without = networks(torch.cat([x, x]), t, ids, mask).chunk(2)
        x = x - (without + scale * (with_text - without)) / steps
    return vae.decode(x).sample.clamp(-1, 1)


def sample_sheet(networks: Networks, vae, words, recipe: Recipe, prompts) -> Image.Image:
    """A contact sheet of ``prompts`` with 20 steps, seed 0, on white."""
    y = (sample_images(networks, vae, words, prompts)[:, :3] + 1) * 127.5
    y = y.round().byte().permute(0, 2, 3, 1).cpu()
    size = recipe.data.size
    image = Image.new("RGB", (8 * size, -(-len(prompts) // 8) * size))
    for i, tile in enumerate(y.numpy()):
        image.paste(Image.fromarray(tile), (i % 8 * size, i // 8 * size))
    return image


def pipeline(recipe: Recipe, words, networks: Networks, vae) -> PixArtSigmaPipeline:
    """The trained parts as a diffusers pipeline."""
    scheduler: Any = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, final_sigmas_type="zero"
    )
    return PixArtSigmaPipeline(
        tokenizer=words,
        text_encoder=networks.text_encoder,
        vae=vae,
        transformer=networks.transformer,
        scheduler=scheduler,
    )
