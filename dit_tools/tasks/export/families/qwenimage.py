"""Qwen-Image: diffusers' forward with the rotary embedding in real numbers and free sizes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dit_tools.tasks.export._replace import replaced
from dit_tools.tasks.export.families import _rotary
from dit_tools.tasks.export.tracing import BATCH, TEXT, Recipe, Sizes, mask, plain, states

TOKENS = {0: "batch", 1: "tokens"}


class QwenImage(Recipe):
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
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, width),
            "encoder_hidden_states_mask": mask(sizes, "bool"),
        }

    def refusal(self, transformer: Mapping[str, Any]) -> str:
        """The variants for editing and for layers put several pictures into one sequence."""
        odd = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")
        return ", ".join(key for key in odd if transformer.get(key))

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The transformer with real rotary embeddings."""
        module = sys.modules[type(transformer).__module__]
        embed = transformer.pos_embed

        def turned(x: Any, pairs: Any, use_real: bool = False) -> Any:
            return _rotary.rotate(x, pairs, head_axis=1)

        def angles(img_shapes: Any, max_txt_seq_len: Any = None, device: Any = None) -> Any:
            return pairs(embed, img_shapes, max_txt_seq_len)

        with replaced(module, "apply_rotary_emb_qwen", turned), replaced(embed, "forward", angles):
            yield plain(transformer)


def pairs(embed: Any, img_shapes: Any, text_length: Any) -> tuple[Any, Any]:
    """Rotary pairs of image (N, D/2, 2) and text (L, D/2, 2) tokens.

    Rows and columns count from the middle of the picture, text goes on from its larger half
    (Wu et al. 2025, arXiv:2508.02324, Sec. 2.4, "MSRoPE").
    """
    import torch

    both = torch.cat([embed.neg_freqs, embed.pos_freqs])  # positions -4096 to 4095
    zero = len(embed.neg_freqs)
    widths = [size // 2 for size in embed.axes_dim]
    tables = list(_rotary.table(both).split(widths, dim=1))
    rows, columns = img_shapes[0, 0, 1], img_shapes[0, 0, 2]
    grid = _rotary.grid(rows, columns, img_shapes.device)
    middle = torch.stack([rows - rows // 2, columns - columns // 2])
    place = torch.cat([torch.zeros_like(grid[:, :1]), grid - middle], dim=1) + zero
    after = torch.maximum(rows // 2, columns // 2)
    text = (torch.arange(text_length) + after + zero)[:, None].expand(-1, 3)
    return _rotary.gather(tables, place), _rotary.gather(tables, text)


RECIPE = QwenImage()
