"""Qwen-Image: a two-stream transformer on 2x2 patches of a video autoencoder's latents."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dit_tools.core.arrays import Array, convert_like
from dit_tools.core.blocks import IMAGE_AND_TEXT, JOINT, LAST, AttentionSpec, BlockSpec, PositionSpec
from dit_tools.core.prediction import Prediction
from dit_tools.models.families import _onnx
from dit_tools.models.families._packed import PackedFamily
from dit_tools.models.families._shapes import pack, pad_texts, unpack
from dit_tools.models.family import ConditionRequest
from dit_tools.models.onnx_recipe import (
    BATCH,
    TEXT,
    OnnxRecipe,
    Sizes,
    plain_module,
    random_states,
    replaced_attribute,
    text_mask,
)

MAX_TOKENS = 512
"""Text tokens behind the prompt template: ``max_sequence_length`` of the pipeline's own call."""


class QwenImage(PackedFamily):
    """Velocity of a flow, timestep ``t``, text and image streams with joint attention.

    Wu et al. 2025 (arXiv:2508.02324). The autoencoder has statistics per channel and a frame axis,
    which exists from ``to_vae`` on only. The pipeline's guidance ("true CFG") keeps the length of
    the conditional prediction token by token, that is per 2x2 patch: ``default_guidance``. Without
    a negative prompt the pipeline does not guide at all; ours takes the empty one.
    """

    name = "qwenimage"
    frame_axis = True
    passes_sigmas = True
    default_steps = 50
    default_cfg = 4.0
    default_guidance = "cfg:norm=patch"
    pipelines = ("QwenImagePipeline",)
    marks = ("transformer_blocks.0.img_mod.1.weight",)
    original = "Qwen/Qwen-Image"
    blocks = {
        "QwenImageTransformerBlock": BlockSpec(
            output=1,
            attention=(AttentionSpec("attn", JOINT, LAST),),
            mlp=("img_mlp", "txt_mlp"),
            per_token=(("image_rotary_emb", IMAGE_AND_TEXT),),
        )
    }

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side: 8."""
        return 2 ** len(self.vae["temperal_downsample"])

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, the template's own tokens dropped."""
        wanted = {"cond": request.texts, "uncond": request.negatives}
        length = request.max_tokens or MAX_TOKENS
        branches = {}
        for branch in ("cond", "uncond"):
            if branch in request.branches:
                states, mask = pipe.encode_prompt(list(wanted[branch]), max_sequence_length=length)
                branches[branch] = _texts(states, mask)
        return {
            name: {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}
            for name, (states, mask) in pad_texts(branches).items()
        }

    def timestep(self, x: Array, t: float) -> Array:
        """``t``, shape (B,)."""
        return super().timestep(x, t) / 1000

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of QwenImageTransformer2DModel."""
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        return {
            "hidden_states": pack(x, self.patch),
            "timestep": self.timestep(x, t),
            "encoder_hidden_states": condition["encoder_hidden_states"],
            "encoder_hidden_states_mask": condition["encoder_hidden_states_mask"],
            "img_shapes": [[(1, rows, columns)]] * x.shape[0],
        }

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """Tokens (B, N, 4 C) as velocity (B, C, h, w)."""
        return super().read(unpack(output, x.shape[-2], x.shape[-1], self.patch), x, t)

    def to_vae(self, x: Array) -> Array:
        """Latents (B, C, h, w) times deviation plus mean, with one frame: (B, C, 1, h, w)."""
        mean, deviation = self._statistics(x)
        return (x * deviation + mean)[:, :, None]

    def from_vae(self, z: Array) -> Array:
        """The inverse of ``to_vae``."""
        z = z[:, :, 0]
        mean, deviation = self._statistics(z)
        return (z - mean) / deviation

    def _statistics(self, reference: Array) -> tuple[Array, Array]:
        import numpy as np

        mean, deviation = (
            convert_like(np.array(self.vae[key], dtype=np.float32), reference).reshape(1, -1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        return mean, deviation

    def positions(self) -> PositionSpec:
        """Positions that can be rescaled."""
        return PositionSpec("pos_embed", _rescale_positions)

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return QwenImageOnnx()


def _texts(states: Array, mask: Array | None) -> list[Array]:
    if mask is None:  # the pipeline's way of saying that nothing was padded
        return list(states)
    lengths = mask.sum(1).tolist()
    return [text[:length] for text, length in zip(states, lengths, strict=True)]


def _rescale_positions(how: Any, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Complex factors (N, d / 2) of the image, whose rows and columns count from the middle."""
    import torch

    from dit_tools.nn.positions import unit_complex

    image, text = compute()
    embed, (rows, columns) = model.pos_embed, how.grid
    frame = embed.axes_dim[0] // 2
    parts = [image[:, :frame].reshape(rows, columns, frame)]
    for axis, count in enumerate(how.grid):
        places = torch.arange(count, device=image.device) - (count - count // 2)
        places = places if embed.scale_rope else places + count - count // 2
        turn = unit_complex(how.angles(axis, places, embed.axes_dim[axis + 1], embed.theta), image.dtype)
        shape = (rows, 1, -1) if axis == 0 else (1, columns, -1)
        parts.append(turn.reshape(shape).expand(rows, columns, -1))
    made = torch.cat(parts, 2).reshape(rows * columns, -1)
    return made * how.length, text * how.length


TOKENS = {0: "batch", 1: "tokens"}


class QwenImageOnnx(OnnxRecipe):
    """Text states (B, L, D) and mask (B, L); ``img_shapes`` is an int64 array (B, 1, 3)."""

    dynamic = {
        "hidden_states": TOKENS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "encoder_hidden_states_mask": TEXT,
        "img_shapes": BATCH,
        "sample": TOKENS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and mask."""
        width = family.transformer["joint_attention_dim"]
        return {
            "encoder_hidden_states": random_states(draw, sizes.batch, sizes.text, width),
            "encoder_hidden_states_mask": text_mask(sizes, "bool"),
        }

    def refusal(self, transformer: Mapping[str, Any]) -> str:
        """The variants for editing and for layers put several images into one sequence."""
        odd = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")
        return ", ".join(key for key in odd if transformer.get(key))

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The transformer with real rotary embeddings."""
        module = sys.modules[type(transformer).__module__]
        embed = transformer.pos_embed

        def turned(x: Any, pairs: Any, use_real: bool = False) -> Any:
            return _onnx.rotate(x, pairs, head_axis=1)

        def angles(img_shapes: Any, max_txt_seq_len: Any = None, device: Any = None) -> Any:
            return rotary_pairs(embed, img_shapes, max_txt_seq_len)

        with replaced_attribute(module, "apply_rotary_emb_qwen", turned), replaced_attribute(embed, "forward", angles):
            yield plain_module(transformer)


def rotary_pairs(embed: Any, img_shapes: Any, text_length: Any) -> tuple[Any, Any]:
    """Rotary pairs of image (N, D/2, 2) and text (L, D/2, 2) tokens.

    Rows and columns count from the middle of the image, text goes on from its larger half
    (Wu et al. 2025, arXiv:2508.02324, Sec. 2.4, "MSRoPE").
    """
    import torch

    both = torch.cat([embed.neg_freqs, embed.pos_freqs])  # positions -4096 to 4095
    zero = len(embed.neg_freqs)
    widths = [size // 2 for size in embed.axes_dim]
    tables = list(_onnx.table(both).split(widths, dim=1))
    rows, columns = img_shapes[0, 0, 1], img_shapes[0, 0, 2]
    grid = _onnx.grid(rows, columns, img_shapes.device)
    middle = torch.stack([rows - rows // 2, columns - columns // 2])
    place = torch.cat([torch.zeros_like(grid[:, :1]), grid - middle], dim=1) + zero
    after = torch.maximum(rows // 2, columns // 2)
    text = (torch.arange(text_length) + after + zero)[:, None].expand(-1, 3)
    return _onnx.gather(tables, place), _onnx.gather(tables, text)


FAMILY = QwenImage
