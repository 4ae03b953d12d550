"""Flux: packed tokens with their positions as inputs, so that pictures may have any size."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from dit_tools.tasks.export._replace import replaced
from dit_tools.tasks.export.families import _rotary
from dit_tools.tasks.export.tracing import BATCH, TEXT, Recipe, Sizes, plain, states

TOKENS = {0: "batch", 1: "tokens"}


class Flux(Recipe):
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
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, config["joint_attention_dim"]),
            "pooled_projections": states(draw, sizes.batch, config["pooled_projection_dim"]),
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
            return _rotary.rotate(x, pairs, head_axis=1)

        with replaced(module, "apply_rotary_emb", turned), replaced(embed, "forward", lambda ids: pairs(embed, ids)):
            yield plain(transformer)


def pairs(embed: Any, ids: Any) -> Any:
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


RECIPE = Flux()
