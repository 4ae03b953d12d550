"""Helpers of families: latents as a row of 2x2 patches, texts as long as they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array

UNIT = 32
"""Texts are cut to a multiple: nearly every batch has the same length, so that its arithmetic, and
with it the last bits of an image, does not depend on its neighbours' prompts."""
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"


def pack(x: Array, patch: int = 2) -> Array:
    """Latents (B, C, h, w) as tokens (B, h/p w/p, C p p), channel slowest within a token."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch)  # (B, C, h, p, w, p)
    x = x.swapaxes(1, 2).swapaxes(2, 4).swapaxes(3, 4)  # (B, h, w, C, p, p)
    return x.reshape(b, (h // patch) * (w // patch), c * patch * patch)


def unpack(tokens: Array, height: int, width: int, patch: int = 2) -> Array:
    """The inverse of ``pack`` for latents of ``height`` x ``width``."""
    rows, columns = height // patch, width // patch
    x = tokens.reshape(tokens.shape[0], rows, columns, -1, patch, patch)  # (B, h, w, C, p, p)
    x = x.swapaxes(3, 4).swapaxes(2, 4).swapaxes(1, 2)  # (B, C, h, p, w, p)
    return x.reshape(tokens.shape[0], -1, height, width)


def pad_texts(branches: Mapping[str, Sequence[Array]]) -> dict[str, tuple[Array, Array]]:
    """Texts [(L_i, D), ...] per branch as states (B, L, D) and mask (B, L), torch.

    L is the longest text of all branches, so that branches can share a network call.
    """
    import torch

    longest = max(len(text) for texts in branches.values() for text in texts)
    made = {}
    for name, texts in branches.items():
        states = texts[0].new_zeros(len(texts), longest, texts[0].shape[-1])
        mask = torch.zeros(len(texts), longest, dtype=torch.bool, device=states.device)
        for row, text in enumerate(texts):
            states[row, : len(text)] = text
            mask[row, : len(text)] = True
        made[name] = (states, mask)
    return made


def read_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """Cross-attention's arguments without the end that the mask (B, L) hides from every image.

    Pipelines fill texts up to 300 positions, and every block makes keys and values of all of them:
    with few image tokens that is most of the work. On an accelerator they stay, where it is little
    and the length would have to be waited for.
    """
    mask = inputs[MASK]
    if mask.ndim != 2 or mask.device.type != "cpu":
        return inputs
    read = mask.bool().any(0).nonzero()
    last = int(read[-1]) + 1 if len(read) else 1
    length = -(-last // UNIT) * UNIT
    if length >= mask.shape[1]:
        return inputs
    return inputs | {STATES: inputs[STATES][:, :length], MASK: mask[:, :length]}
