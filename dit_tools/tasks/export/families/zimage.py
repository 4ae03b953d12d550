"""Z-Image: lists of pictures and texts as padded arrays; ``cap_feats_lengths`` says how long."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dit_tools.tasks.export._replace import replaced
from dit_tools.tasks.export.families import _rotary
from dit_tools.tasks.export.families._patches import patches, picture
from dit_tools.tasks.export.tracing import BATCH, TEXT, Recipe, Sizes, states

PICTURES = {0: "batch", 3: "height", 4: "width"}
MULTIPLE = 32
"""Picture and text are each padded to a multiple of this with tokens that take part (diffusers'
``SEQ_MULTI_OF``)."""


class ZImage(Recipe):
    """Text states (B, L, D) and their lengths (B,)."""

    dynamic = {"x": PICTURES, "t": BATCH, "cap_feats": TEXT, "cap_feats_lengths": BATCH, "sample": PICTURES}

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states and lengths."""
        import numpy as np

        width = family.transformer["cap_feat_dim"]
        lengths = np.array([max(sizes.text - 3 * row, 1) for row in range(sizes.batch)])
        return {"cap_feats": states(draw, sizes.batch, sizes.text, width), "cap_lengths": lengths}

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """A module with the transformer's layers and a forward on padded arrays."""
        stacks = (transformer.noise_refiner, transformer.context_refiner, transformer.layers)
        with contextlib.ExitStack() as stack:
            for block in (block for blocks in stacks for block in blocks):
                stack.enter_context(replaced(block.attention, "processor", Attend()))
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
        query, key = (_rotary.rotate(x, freqs_cis, head_axis=2) for x in (query, key))
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
            self.tables = [_rotary.table(t) for t in tables]

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
            return picture(out, rows, columns, p)[:, :, None]

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
            return embedded, keep, _rotary.gather(self.tables, ids), taken

        def image(self, x: Any, rows: Any, columns: Any, taken: Any) -> tuple[Any, Any]:
            """Embedded image tokens (B, N', D) and their pairs; padding stands at (0, 0, 0)."""
            pieces = patches(x, rows, columns, p)
            count = pieces.shape[1]
            place = torch.arange(_rounded(count))  # (N',)
            real = (place < count)[:, None]
            tokens = pieces.index_select(1, place.clamp(max=count - 1))
            tokens = torch.where(real, self.net.all_x_embedder[name](tokens), self.net.x_pad_token)
            grid = torch.stack([place // columns, place % columns], dim=-1)[None]  # (1, N', 2)
            grid = grid.expand(taken.shape[0], -1, -1)
            first = (taken + 1)[:, None, None].expand(-1, grid.shape[1], -1)
            ids = torch.cat([first, grid], dim=-1) * real
            return tokens, _rotary.gather(self.tables, ids)

    return Padded()


def _rounded(count: Any) -> Any:
    return (count + MULTIPLE - 1) // MULTIPLE * MULTIPLE


RECIPE = ZImage()
