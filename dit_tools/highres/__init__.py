"""High resolution: pictures larger than the model was made for (``--highres``).

Contract: ``attach(network, run) -> context manager`` changes how the network sees positions while
it lasts; ``run.grid`` says rows and columns of image tokens. ``steps(scene) -> Iterator[Step]``
makes the picture: one run at the size that was asked for, unless a method climbs to it, as
``diffusehigh`` does. At its identity parameters a method is bit-equal to none.

Furniture: ``_base.HighRes`` and ``_base.Scene``; ``dit_tools.nn.positions``.
"""
