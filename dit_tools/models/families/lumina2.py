"""Lumina-Image 2.0: text and image tokens in one stream."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import BEHIND, JOINT, PER_ROW, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.core.prediction import Prediction
from dit_tools.models.families import _onnx
from dit_tools.models.families._positions import rescale_rotary_tables
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import (
    BATCH,
    LATENTS,
    TEXT,
    OnnxRecipe,
    Sizes,
    random_states,
    replaced_attribute,
    text_mask,
)


class Lumina2(Family):
    """Predicts ``x0 - noise``, minus our velocity, and is told ``1 - t``: 1 is the image.

    Qin et al. 2025 (arXiv:2503.21758). Prompts go behind the pipeline's system prompt, negative
    prompts do not. The pipeline's guidance keeps the length of the conditional prediction along
    the last axis, a latent row at a time; that is ``default_guidance``. Its ``cfg_trunc_ratio`` is
    1 by default, which truncates nothing.
    """

    name = "lumina2"
    passes_sigmas = True
    default_steps = 30
    default_cfg = 4.0
    default_guidance = "cfg:norm=row"
    pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
    marks = ("time_caption_embed.caption_embedder.0.weight", "cap_embedder.0.weight+layers.0.adaLN_modulation.1.weight")
    original = "Alpha-VLLM/Lumina-Image-2.0"
    lora = {
        "layers.{}.attention.qkv": ("layers.{}.attn.to_q", "layers.{}.attn.to_k", "layers.{}.attn.to_v"),
        "layers.{}.attention.out": ("layers.{}.attn.to_out.0",),
        "layers.{}.feed_forward.w1": ("layers.{}.feed_forward.linear_1",),
        "layers.{}.feed_forward.w2": ("layers.{}.feed_forward.linear_2",),
        "layers.{}.feed_forward.w3": ("layers.{}.feed_forward.linear_3",),
        "layers.{}.adaLN_modulation.1": ("layers.{}.norm1.linear",),
        "noise_refiner.{}.attention.qkv": (
            "noise_refiner.{}.attn.to_q",
            "noise_refiner.{}.attn.to_k",
            "noise_refiner.{}.attn.to_v",
        ),
        "noise_refiner.{}.attention.out": ("noise_refiner.{}.attn.to_out.0",),
        "noise_refiner.{}.feed_forward.w1": ("noise_refiner.{}.feed_forward.linear_1",),
        "noise_refiner.{}.feed_forward.w2": ("noise_refiner.{}.feed_forward.linear_2",),
        "noise_refiner.{}.feed_forward.w3": ("noise_refiner.{}.feed_forward.linear_3",),
        "noise_refiner.{}.adaLN_modulation.1": ("noise_refiner.{}.norm1.linear",),
        "context_refiner.{}.attention.qkv": (
            "context_refiner.{}.attn.to_q",
            "context_refiner.{}.attn.to_k",
            "context_refiner.{}.attn.to_v",
        ),
        "context_refiner.{}.attention.out": ("context_refiner.{}.attn.to_out.0",),
        "context_refiner.{}.feed_forward.w1": ("context_refiner.{}.feed_forward.linear_1",),
        "context_refiner.{}.feed_forward.w2": ("context_refiner.{}.feed_forward.linear_2",),
        "context_refiner.{}.feed_forward.w3": ("context_refiner.{}.feed_forward.linear_3",),
        "cap_embedder.1": ("time_caption_embed.caption_embedder.1",),
        "t_embedder.mlp.0": ("time_caption_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_caption_embed.timestep_embedder.linear_2",),
        "final_layer.linear": ("norm_out.linear_2",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear_1",),
    }
    blocks = {
        "Lumina2TransformerBlock": BlockSpec(  # one stream: text, then the image's tokens, then padding
            attention=(AttentionSpec("attn", JOINT, BEHIND),),
            mlp=("feed_forward",),
            joined=BEHIND,
            mask="attention_mask",
            per_token=(("attention_mask", PER_ROW), ("image_rotary_emb", PER_ROW)),
        )
    }

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """The number that the pipeline's shift sees: the second axis of its latents, C.

        Not the number of image tokens; the released model has a static shift, which ignores it.
        """
        return int(latent_shape[-3])

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, L = 256 unless told otherwise."""
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        text, mask, no_text, no_mask = pipe.encode_prompt(
            list(request.texts),
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else None,
            **extra,
        )
        made = {"cond": {"encoder_hidden_states": text, "encoder_attention_mask": mask}}
        if wanted:
            made["uncond"] = {"encoder_hidden_states": no_text, "encoder_attention_mask": no_mask}
        return made

    def timestep(self, x: Array, t: float) -> Array:
        """``1 - t``, shape (B,)."""
        count = float(self.scheduler.get("num_train_timesteps", 1000))
        return 1 - super().timestep(x, t) / count

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of Lumina2Transformer2DModel."""
        return {
            "hidden_states": x,
            "timestep": self.timestep(x, t),
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_attention_mask": condition["encoder_attention_mask"],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Minus the raw output (B, C, h, w) is the velocity."""
        return super().read(-output, x, t)

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("", rescale_rotary_tables)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return Lumina2Onnx()


class Lumina2Onnx(OnnxRecipe):
    """Text states (B, L, D) and mask (B, L), padded on the right."""

    dynamic = {
        "hidden_states": LATENTS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "encoder_attention_mask": TEXT,
        "sample": LATENTS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and mask."""
        width = family.transformer["cap_feat_dim"]
        return {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": text_mask(sizes),
        }

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """A module with the transformer's layers and a forward without loops over the batch."""
        module = sys.modules[type(transformer).__module__]

        def turned(x: Any, pairs: Any, use_real: bool = False) -> Any:
            return _onnx.rotate(x, pairs, head_axis=2)

        with replaced_attribute(module, "apply_rotary_emb", turned):
            yield _module(transformer)


def _module(transformer: Any) -> Any:
    import torch

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer
            self.tables = [_onnx.table(t) for t in transformer.rope_embedder.freqs_cis]

        def forward(
            self, hidden_states: Any, timestep: Any, encoder_hidden_states: Any, encoder_attention_mask: Any
        ) -> Any:
            net, keep = self.net, encoder_attention_mask.bool()
            rows, columns = (s // net.config.patch_size for s in hidden_states.shape[-2:])
            time, text = net.time_caption_embed(hidden_states, timestep, encoder_hidden_states)
            text_turns, turns = self.turns(keep, rows, columns)
            image = net.x_embedder(_onnx.patches(hidden_states, rows, columns, net.config.patch_size))
            for layer in net.context_refiner:
                text = layer(text, keep, text_turns)
            for layer in net.noise_refiner:
                image = layer(image, None, turns, time)
            joint = torch.cat([text, image], dim=1)
            joint_turns = torch.cat([text_turns, turns], dim=1)
            joint_keep = torch.cat([keep, torch.ones_like(image[..., 0], dtype=torch.bool)], dim=1)
            for layer in net.layers:
                joint = layer(joint, joint_keep, joint_turns, time)
            out = net.norm_out(joint, time)[:, text.shape[1] :]
            return _onnx.image_of(out, rows, columns, net.config.patch_size)

        def turns(self, keep: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
            """Rotary pairs of text (B, L, D/2, 2) and image (B, N, D/2, 2) tokens."""
            place = torch.arange(keep.shape[1])[None].expand_as(keep)
            nowhere = torch.zeros_like(place)
            text = torch.stack([place * keep, nowhere, nowhere], dim=-1)  # (B, L, 3)
            grid = _onnx.grid(rows, columns, keep.device)[None]  # (1, N, 2)
            grid = grid.expand(keep.shape[0], -1, -1)
            lengths = keep.sum(1)[:, None, None].expand(-1, grid.shape[1], -1)  # (B, N, 1)
            image = torch.cat([lengths, grid], dim=-1)
            return _onnx.gather(self.tables, text), _onnx.gather(self.tables, image)

    return Padded()


FAMILY = Lumina2
