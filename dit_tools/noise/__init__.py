"""Noise: where the starting latents come from (``--noise``).

Contract: ``draw(shape, seeds) -> array`` of shape ``(len(seeds), *shape)``, float32, one stream per
seed, so that a picture depends on its seed and never on the batch; ``stream(shape, seeds)`` gives
an object whose ``fresh()`` draws the next noise of the same streams, for stochastic solvers.

A stream made of ``torch.Generator`` shows them as ``generators``, so that ``--solver diffusers``
can hand them on.

Furniture: ``_base.Noise``.
"""
