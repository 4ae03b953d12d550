"""Families whose pipeline packs 2x2 latents into a token before the transformer sees them."""

from __future__ import annotations

from dit_tools.core.size import Size
from dit_tools.models.family import Family


class PackedFamily(Family):
    """Sizes of a transformer whose ``in_channels`` are those of a whole patch of latents."""

    @property
    def default_size(self) -> int:
        """1024 pixels for the released autoencoder: 128 latents, as in the pipeline."""
        return 128 * self.vae_scale

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Latent shape (C, h, w); the transformer's channels are those of a whole patch."""
        channels, *sides = super().latent_shape(size)
        return (channels // self.patch**2, *sides)
