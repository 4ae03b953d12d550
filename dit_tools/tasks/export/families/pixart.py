"""PixArt: position embeddings computed in the graph, so that pictures may have any size.

Traced with the TorchScript exporter on purpose: ONNX Runtime refuses the dynamo exporter's graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dit_tools.tasks.export._replace import replaced
from dit_tools.tasks.export.tracing import BATCH, LATENTS, TEXT, Recipe, Sizes, mask, states


class PixArt(Recipe):
    """Text states (B, L, D), mask (B, L); picture size (B, 2) and ratio (B, 1) for PixArt-alpha."""

    dynamic = {
        "hidden_states": LATENTS,
        "timestep": BATCH,
        "encoder_hidden_states": TEXT,
        "encoder_attention_mask": TEXT,
        "resolution": BATCH,
        "aspect_ratio": BATCH,
        "sample": LATENTS,
    }

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Text states, mask and micro-conditions."""
        import numpy as np

        width = family.transformer["caption_channels"]
        made = {
            "encoder_hidden_states": states(draw, sizes.batch, sizes.text, width),
            "encoder_attention_mask": mask(sizes),
        }
        if family.micro_conditions:
            size = np.array([[sizes.height, sizes.width]] * sizes.batch, dtype=np.float32)
            made |= {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
        return made

    @contextlib.contextmanager
    def prepared(self, transformer: Any) -> Iterator[Any]:
        """The transformer with free sizes and micro-conditions as plain inputs."""
        embed = transformer.pos_embed
        with replaced(embed, "forward", lambda latent: embedded(embed, latent)):
            yield _flat(transformer)


def embedded(embed: Any, latent: Any) -> Any:
    """What diffusers' ``PatchEmbed`` gives, in operations that follow the latents' size."""
    import torch

    tokens = embed.proj(latent)  # (B, D, rows, columns)
    rows, columns = tokens.shape[-2:]
    width = embed.pos_embed.shape[-1]
    rates = torch.arange(width // 4, dtype=torch.float64) / (width / 4.0)
    rates = (1.0 / 10000**rates).float()
    angles = []
    for size in (columns, rows):  # the width comes first
        index = torch.arange(size, dtype=torch.float32)
        scaled = index / (size / embed.base_size) / embed.interpolation_scale
        outer = scaled[:, None] * rates
        angles.append(torch.cat([outer.sin(), outer.cos()], dim=1))  # (size, D/2)
    across = angles[0][None].expand(rows, -1, -1)
    down = angles[1][:, None].expand(-1, columns, -1)
    positions = torch.cat([across, down], dim=-1).flatten(0, 1)  # (N, D)
    return tokens.flatten(2).transpose(1, 2) + positions


def _flat(transformer: Any) -> Any:
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer

        def forward(self, **inputs: Any) -> Any:
            keys = [key for key in ("resolution", "aspect_ratio") if key in inputs]
            micro = {key: inputs.pop(key) for key in keys}
            extra = {"added_cond_kwargs": micro} if micro else {}
            return self.net(**inputs, **extra, return_dict=False)[0]

    return Flat()


RECIPE = PixArt()
