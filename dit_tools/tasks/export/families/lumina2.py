"""Lumina2: the same network, but padded text keeps its place and is masked instead of cut out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from dit_tools.tasks.export._replace import replaced
from dit_tools.tasks.export.families import _rotary
from dit_tools.tasks.export.families._patches import patches, picture
from dit_tools.tasks.export.tracing import BATCH, LATENTS, TEXT, Recipe, Sizes, mask, states


class Lumina2(Recipe):
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
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": mask(sizes),
        }

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """A module with the transformer's layers and a forward without loops over the batch."""
        module = sys.modules[type(transformer).__module__]

        def turned(x: Any, pairs: Any, use_real: bool = False) -> Any:
            return _rotary.rotate(x, pairs, head_axis=2)

        with replaced(module, "apply_rotary_emb", turned):
            yield _module(transformer)


def _module(transformer: Any) -> Any:
    import torch

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer
            self.tables = [_rotary.table(t) for t in transformer.rope_embedder.freqs_cis]

        def forward(
            self, hidden_states: Any, timestep: Any, encoder_hidden_states: Any, encoder_attention_mask: Any
        ) -> Any:
            net, keep = self.net, encoder_attention_mask.bool()
            rows, columns = (s // net.config.patch_size for s in hidden_states.shape[-2:])
            time, text = net.time_caption_embed(hidden_states, timestep, encoder_hidden_states)
            text_turns, turns = self.turns(keep, rows, columns)
            image = net.x_embedder(patches(hidden_states, rows, columns, net.config.patch_size))
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
            return picture(out, rows, columns, net.config.patch_size)

        def turns(self, keep: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
            """Rotary pairs of text (B, L, D/2, 2) and image (B, N, D/2, 2) tokens."""
            place = torch.arange(keep.shape[1])[None].expand_as(keep)
            nowhere = torch.zeros_like(place)
            text = torch.stack([place * keep, nowhere, nowhere], dim=-1)  # (B, L, 3)
            grid = _rotary.grid(rows, columns, keep.device)[None]  # (1, N, 2)
            grid = grid.expand(keep.shape[0], -1, -1)
            lengths = keep.sum(1)[:, None, None].expand(-1, grid.shape[1], -1)  # (B, N, 1)
            image = torch.cat([lengths, grid], dim=-1)
            return _rotary.gather(self.tables, text), _rotary.gather(self.tables, image)

    return Padded()


RECIPE = Lumina2()
