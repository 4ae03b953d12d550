"""Flux.1: two-stream and one-stream blocks on 2x2 patches, with guidance as an input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dit_tools.core.arrays import Array, convert_like
from dit_tools.core.blocks import JOINT, LAST, TEXT_FIRST, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.core.prediction import Prediction
from dit_tools.models.families import _onnx
from dit_tools.models.families._packed import PackedFamily
from dit_tools.models.families._shapes import pack, unpack
from dit_tools.models.family import ConditionRequest
from dit_tools.models.onnx_recipe import BATCH, TEXT, OnnxRecipe, Sizes, plain_module, random_states, replaced_attribute
from dit_tools.models.prompt_tokens import tokens

EMBEDDED_GUIDANCE = 3.5
"""``guidance_scale`` of the pipeline's own call: the value that Flux.1-dev is told."""


class Flux(PackedFamily):
    """Velocity of a flow, timestep ``t``, T5 states, CLIP's pooled vector, embedded guidance.

    Black Forest Labs 2025 (arXiv:2506.15742, Sec. 2). Flux.1-dev is guidance-distilled: ordinary
    guidance is off (``default_cfg`` 1); with it, at twice the cost, a negative prompt counts
    ("true CFG" in the pipeline). The autoencoder's latents are sampled unpacked here.
    """

    name = "flux"
    passes_sigmas = True
    default_steps = 28
    default_cfg = 1.0
    pipelines = ("FluxPipeline",)
    marks = ("single_transformer_blocks.0.attn.norm_q.weight", "double_blocks.0.img_attn.norm.key_norm.scale")
    original = "black-forest-labs/FLUX.1-dev"
    lora = {
        "double_blocks.{}.img_attn.qkv": (
            "transformer_blocks.{}.attn.to_q",
            "transformer_blocks.{}.attn.to_k",
            "transformer_blocks.{}.attn.to_v",
        ),
        "double_blocks.{}.img_attn.proj": ("transformer_blocks.{}.attn.to_out.0",),
        "double_blocks.{}.processor.qkv_lora1": (
            "transformer_blocks.{}.attn.to_q",
            "transformer_blocks.{}.attn.to_k",
            "transformer_blocks.{}.attn.to_v",
        ),
        "double_blocks.{}.processor.proj_lora1": ("transformer_blocks.{}.attn.to_out.0",),
        "double_blocks.{}.img_mlp.0": ("transformer_blocks.{}.ff.net.0.proj",),
        "double_blocks.{}.img_mlp.2": ("transformer_blocks.{}.ff.net.2",),
        "double_blocks.{}.img_mod.lin": ("transformer_blocks.{}.norm1.linear",),
        "double_blocks.{}.txt_attn.qkv": (
            "transformer_blocks.{}.attn.add_q_proj",
            "transformer_blocks.{}.attn.add_k_proj",
            "transformer_blocks.{}.attn.add_v_proj",
        ),
        "double_blocks.{}.txt_attn.proj": ("transformer_blocks.{}.attn.to_add_out",),
        "double_blocks.{}.processor.qkv_lora2": (
            "transformer_blocks.{}.attn.add_q_proj",
            "transformer_blocks.{}.attn.add_k_proj",
            "transformer_blocks.{}.attn.add_v_proj",
        ),
        "double_blocks.{}.processor.proj_lora2": ("transformer_blocks.{}.attn.to_add_out",),
        "double_blocks.{}.txt_mlp.0": ("transformer_blocks.{}.ff_context.net.0.proj",),
        "double_blocks.{}.txt_mlp.2": ("transformer_blocks.{}.ff_context.net.2",),
        "double_blocks.{}.txt_mod.lin": ("transformer_blocks.{}.norm1_context.linear",),
        "single_blocks.{}.linear1": (
            "single_transformer_blocks.{}.attn.to_q",
            "single_transformer_blocks.{}.attn.to_k",
            "single_transformer_blocks.{}.attn.to_v",
            "single_transformer_blocks.{}.proj_mlp",
        ),
        "single_blocks.{}.linear2": ("single_transformer_blocks.{}.proj_out",),
        "single_blocks.{}.modulation.lin": ("single_transformer_blocks.{}.norm.linear",),
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
        "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
        "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
        "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
        "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear~",),
    }
    blocks = {
        "FluxTransformerBlock": BlockSpec(
            output=1,
            attention=(AttentionSpec("attn", JOINT, LAST),),
            mlp=("ff", "ff_context"),
            per_token=(("image_rotary_emb", TEXT_FIRST),),
        ),
        "FluxSingleTransformerBlock": BlockSpec(
            output=1,
            attention=(AttentionSpec("attn", JOINT, LAST),),
            mlp=("proj_mlp",),
            per_token=(("image_rotary_emb", TEXT_FIRST),),
        ),
    }

    @property
    def patch(self) -> int:
        """2, which the pipeline has in its code and the transformer's config does not say."""
        return 2

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D), pooled vectors (B, P) and guidance (B,) per branch, L = 512."""
        texts = {"cond": request.texts, "uncond": request.negatives}
        made = {}
        for branch in ("cond", "uncond"):
            if branch in request.branches:
                made[branch] = self._branch(pipe, list(texts[branch]), request)
        return made

    def _branch(self, pipe: Any, texts: list[str], request: ConditionRequest) -> dict[str, Array]:
        import torch

        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        states, pooled, _ = pipe.encode_prompt(texts, **extra)
        condition = {"encoder_hidden_states": states, "pooled_projections": pooled}
        if self.transformer.get("guidance_embeds"):
            asked = request.embedded_guidance
            value = EMBEDDED_GUIDANCE if asked is None else asked
            condition["guidance"] = torch.full((len(texts),), float(value), device=states.device)
        return condition

    def timestep(self, x: Array, t: float) -> Array:
        """``t``, shape (B,)."""
        return super().timestep(x, t) / float(self.scheduler.get("num_train_timesteps", 1000))

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """T5's tokens."""
        return tokens(pipe.tokenizer_2, prompt, length)

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of FluxTransformer2DModel; positions (N, 3) are (0, row, column)."""
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        length = condition["encoder_hidden_states"].shape[1]
        return {
            "hidden_states": pack(x, self.patch),
            "timestep": self.timestep(x, t),
            "img_ids": positions(rows, columns, x),
            "txt_ids": convert_like(_zeros(length), x),
            **condition,
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Tokens (B, N, 4 C) as velocity (B, C, h, w)."""
        return super().read(unpack(output, x.shape[-2], x.shape[-1], self.patch), x, t)

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("pos_embed", _rescale_positions)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return FluxOnnx()


def positions(rows: int, columns: int, reference: Array) -> Array:
    """Row and column of every image token, (rows * columns, 3) with zeros in front."""
    import numpy as np

    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    flat = grid.reshape(rows * columns, 2).astype(np.float32)
    return convert_like(np.concatenate([_zeros(rows * columns)[:, :1], flat], axis=1), reference)


def _zeros(length: int) -> Any:
    import numpy as np

    return np.zeros((length, 3), dtype=np.float32)


def _rescale_positions(how: Any, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Positions (S, 3) of text and image: cos and sin (S, d), each angle twice."""
    import torch

    from dit_tools.nn.positions import frequencies

    ids = kwargs["ids"] if "ids" in kwargs else args[0]
    embed, angles = model.pos_embed, []
    for axis, dim in enumerate(embed.axes_dim):
        if axis:
            angles.append(how.angles(axis - 1, ids[:, axis], dim, embed.theta))
        else:
            angles.append(torch.outer(ids[:, 0].double(), frequencies(dim, embed.theta, ids.device)))
    both = torch.cat(angles, 1).repeat_interleave(2, 1)
    return (both.cos() * how.length).float(), (both.sin() * how.length).float()


TOKENS = {0: "batch", 1: "tokens"}


class FluxOnnx(OnnxRecipe):
    """Text states (B, L, D), pooled vectors (B, P), guidance (B,) for distilled models."""

    dynamic = {
        "hidden_states": TOKENS,
        "timestep": BATCH,
        "img_ids": {0: "tokens"},
        "txt_ids": {0: "text"},
        "encoder_hidden_states": TEXT,
        "pooled_projections": BATCH,
        "guidance": BATCH,
        "sample": TOKENS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states, pooled vectors, guidance."""
        config = family.transformer
        made = {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, config["joint_attention_dim"]),
            "pooled_projections": random_states(draw, sizes.batch, config["pooled_projection_dim"]),
        }
        if config.get("guidance_embeds"):
            made["guidance"] = draw.uniform(1, 5, sizes.batch).astype("float32")
        return made

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The transformer with rotary embeddings that follow the number of tokens."""
        module = sys.modules[type(transformer).__module__]
        embed = transformer.pos_embed

        def turned(x: Any, pairs: Any, sequence_dim: int = 1) -> Any:
            return _onnx.rotate(x, pairs, head_axis=1)

        with (
            replaced_attribute(module, "apply_rotary_emb", turned),
            replaced_attribute(embed, "forward", lambda ids: rotary_pairs(embed, ids)),
        ):
            yield plain_module(transformer)


def rotary_pairs(embed: Any, ids: Any) -> Any:
    """Rotary pairs (S, D/2, 2) of positions ``ids`` (S, 3), the numbers that ``FluxPosEmbed`` has.

    Its ``repeat_interleave`` and its users' reshapes are tied to one size by the tracer.
    """
    import torch

    turns = []
    for axis, width in enumerate(embed.axes_dim):
        rates = torch.arange(0, width, 2, dtype=torch.float64) / width
        turns.append(ids[:, axis, None].double() * (1.0 / embed.theta**rates))
    turned = torch.cat(turns, dim=-1)  # (S, D/2)
    return torch.stack([turned.cos(), turned.sin()], dim=-1).float()


FAMILY = Flux
