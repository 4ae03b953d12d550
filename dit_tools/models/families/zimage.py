"""Z-Image: one stream of image and text tokens, called with lists of images and texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import FIRST, JOINT, PER_ROW, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.core.prediction import Prediction
from dit_tools.models.families import _onnx
from dit_tools.models.families._positions import rescale_rotary_tables
from dit_tools.models.families._shapes import pad_texts
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import BATCH, TEXT, OnnxRecipe, Sizes, random_states, replaced_attribute


class ZImage(Family):
    """Predicts ``x0 - noise``, minus our velocity, and is told ``1 - t``: 1 is the image.

    Cai et al. 2025 (arXiv:2511.22699). The pipeline guides by ``cond + s (cond - uncond)``, so
    our scale is its ``guidance_scale`` plus 1: 6 for its default of 5, 1 for the turbo model's 0.
    Its ``cfg_normalization`` is off by default (``cfg:norm=sample`` is 1 of it), and its
    ``cfg_truncation`` of 1 truncates nothing (a lower one is ``cfg:interval=..``).
    """

    name = "zimage"
    passes_sigmas = True
    default_steps = 50
    default_cfg = 6.0
    pipelines = ("ZImagePipeline",)
    marks = ("all_final_layer.2-1.linear.weight", "final_layer.2-1.linear.weight", "layers.0.adaLN_modulation.0.weight")
    original = "Tongyi-MAI/Z-Image-Turbo"
    lora = {
        "layers.{}.attention.qkv": ("layers.{}.attention.to_q", "layers.{}.attention.to_k", "layers.{}.attention.to_v"),
        "layers.{}.attention.out": ("layers.{}.attention.to_out.0",),
        "noise_refiner.{}.attention.qkv": (
            "noise_refiner.{}.attention.to_q",
            "noise_refiner.{}.attention.to_k",
            "noise_refiner.{}.attention.to_v",
        ),
        "noise_refiner.{}.attention.out": ("noise_refiner.{}.attention.to_out.0",),
        "context_refiner.{}.attention.qkv": (
            "context_refiner.{}.attention.to_q",
            "context_refiner.{}.attention.to_k",
            "context_refiner.{}.attention.to_v",
        ),
        "context_refiner.{}.attention.out": ("context_refiner.{}.attention.to_out.0",),
        "x_embedder": ("all_x_embedder.2-1",),
        "final_layer.linear": ("all_final_layer.2-1.linear",),
        "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    }
    blocks = {
        "ZImageTransformerBlock": BlockSpec(  # one stream: the image's tokens, then text
            attention=(AttentionSpec("attention", JOINT),),
            mlp=("feed_forward",),
            stream="x",
            joined=FIRST,
            mask="attn_mask",
            per_token=(("attn_mask", PER_ROW), ("freqs_cis", PER_ROW)),
        )
    }

    @property
    def patch(self) -> int:
        """Latents per token along a side: 2."""
        return int(self.transformer["all_patch_size"][0])

    @property
    def default_size(self) -> int:
        """1024 pixels, as in the pipeline; the configs do not say."""
        return 1024

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and true lengths (B,) per branch, by the tokenizer's chat template.

        The lengths stay on the CPU: they cut the padding off again at every call.
        """
        wanted = "uncond" in request.branches
        extra = {"max_sequence_length": request.max_tokens} if request.max_tokens else {}
        texts, no_texts = pipe.encode_prompt(
            list(request.texts),  # the pipeline overwrites the list it is given
            do_classifier_free_guidance=wanted,
            negative_prompt=list(request.negatives) if wanted else None,
            **extra,
        )
        branches = {"cond": texts} | ({"uncond": no_texts} if wanted else {})
        return {
            name: {"cap_feats": states, "cap_lengths": mask.sum(1).cpu()}
            for name, (states, mask) in pad_texts(branches).items()
        }

    def timestep(self, x: Array, t: float) -> Array:
        """``1 - t``, shape (B,)."""
        return 1 - super().timestep(x, t) / 1000

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of ZImageTransformer2DModel: lists of (C, 1, h, w) and (L_i, D)."""
        lengths = condition["cap_lengths"].tolist()
        texts = zip(condition["cap_feats"], lengths, strict=True)
        return {
            "x": list(x[:, :, None]),
            "t": self.timestep(x, t),
            "cap_feats": [text[:length] for text, length in texts],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Minus the raw output (B, C, 1, h, w) is the velocity (B, C, h, w)."""
        return super().read(-output[:, :, 0], x, t)

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("", rescale_rotary_tables)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return ZImageOnnx()


PICTURES = {0: "batch", 3: "height", 4: "width"}
MULTIPLE = 32
"""Image and text are each padded to a multiple of this with tokens that take part (diffusers'
``SEQ_MULTI_OF``)."""


class ZImageOnnx(OnnxRecipe):
    """Text states (B, L, D) and their lengths (B,)."""

    dynamic = {"x": PICTURES, "t": BATCH, "cap_feats": TEXT, "cap_feats_lengths": BATCH, "sample": PICTURES}

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and lengths."""
        import numpy as np

        width = family.transformer["cap_feat_dim"]
        lengths = np.array([max(sizes.text - 3 * row, 1) for row in range(sizes.batch)])
        return {"cap_feats": random_states(draw, sizes.batch, sizes.text, width), "cap_lengths": lengths}

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """A module with the transformer's layers and a forward on padded arrays."""
        stacks = (transformer.noise_refiner, transformer.context_refiner, transformer.layers)
        with contextlib.ExitStack() as stack:
            for block in (block for blocks in stacks for block in blocks):
                stack.enter_context(replaced_attribute(block.attention, "processor", Attend()))
            yield _module(transformer)


class Attend:
    """Self-attention as diffusers' processor does it; ``freqs_cis`` holds pairs (B, S, D/2, 2)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        freqs_cis: Any = None,
    ) -> Any:
        """States (B, S, D) of the module ``attn``, from which the weights come."""
        import torch

        projections = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (p(hidden_states).unflatten(-1, (attn.heads, -1)) for p in projections)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        query, key = (_onnx.rotate(x, freqs_cis, head_axis=2) for x in (query, key))
        out = torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=None if attention_mask is None else attention_mask[:, None, None, :],
        )
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _module(transformer: Any) -> Any:
    import torch

    config = transformer.config
    p = int(config.all_patch_size[0])
    name = f"{p}-{config.all_f_patch_size[0]}"
    rope = transformer.rope_embedder
    tables = rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, theta=rope.theta)

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer
            self.tables = [_onnx.table(t) for t in tables]

        def forward(self, x: Any, t: Any, cap_feats: Any, cap_feats_lengths: Any) -> Any:
            net = self.net
            rows, columns = x.shape[3] // p, x.shape[4] // p
            time = net.t_embedder(t * net.t_scale).type_as(x)
            text, keep, text_turns, taken = self.text(cap_feats, cap_feats_lengths)
            image, turns = self.image(x, rows, columns, taken)
            for layer in net.noise_refiner:
                image = layer(image, None, turns, time)
            for layer in net.context_refiner:
                text = layer(text, keep, text_turns)
            joint = torch.cat([image, text], dim=1)
            joint_turns = torch.cat([turns, text_turns], dim=1)
            joint_keep = torch.cat([torch.ones_like(image[..., 0], dtype=torch.bool), keep], dim=1)
            for layer in net.layers:
                joint = layer(joint, joint_keep, joint_turns, time)
            out = net.all_final_layer[name](joint, c=time)[:, : rows * columns]
            return _onnx.image_of(out, rows, columns, p)[:, :, None]

        def text(self, states: Any, lengths: Any) -> tuple[Any, Any, Any, Any]:
            """Embedded text (B, L', D), mask, pairs, and how many tokens each text takes (B,)."""
            place = torch.arange(_rounded(states.shape[1]))[None]  # (1, L')
            inside = place.clamp(max=states.shape[1] - 1)[0]
            embedded = self.net.cap_embedder(states.index_select(1, inside))
            real = (place < lengths[:, None])[..., None]  # (B, L', 1)
            embedded = torch.where(real, embedded, self.net.cap_pad_token)
            taken = _rounded(lengths)
            keep = place < taken[:, None]
            count = (place + 1) * keep
            nowhere = torch.zeros_like(count)
            ids = torch.stack([count, nowhere, nowhere], dim=-1)
            return embedded, keep, _onnx.gather(self.tables, ids), taken

        def image(self, x: Any, rows: Any, columns: Any, taken: Any) -> tuple[Any, Any]:
            """Embedded image tokens (B, N', D) and their pairs; padding stands at (0, 0, 0)."""
            pieces = _onnx.patches(x, rows, columns, p)
            count = pieces.shape[1]
            place = torch.arange(_rounded(count))  # (N',)
            real = (place < count)[:, None]
            tokens = pieces.index_select(1, place.clamp(max=count - 1))
            tokens = torch.where(real, self.net.all_x_embedder[name](tokens), self.net.x_pad_token)
            grid = torch.stack([place // columns, place % columns], dim=-1)[None]  # (1, N', 2)
            grid = grid.expand(taken.shape[0], -1, -1)
            first = (taken + 1)[:, None, None].expand(-1, grid.shape[1], -1)
            ids = torch.cat([first, grid], dim=-1) * real
            return tokens, _onnx.gather(self.tables, ids)

    return Padded()


def _rounded(count: Any) -> Any:
    return (count + MULTIPLE - 1) // MULTIPLE * MULTIPLE


FAMILY = ZImage
