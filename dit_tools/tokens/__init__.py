"""Tokens: run the network on some of the image tokens (``--tokens``).

Contract: ``attach(blocks, run) -> context manager of a Watch``. Inside it the blocks compute only
the tokens that the method has chosen for this call (``dit_tools.nn.narrowing`` takes the others out
before the first block and puts the rest back after the last one). The denoiser hands the ``Watch``
every branch's prediction, whose left-out tokens it fills in, and then the guided prediction, from
which it chooses the tokens of the next call. ``run.grid`` says rows and columns of image tokens.
State is born in ``attach``, keyed by ``run.branches``, and dies with it. At its identity
parameters a method is bit-equal to none. ``run.count["tokens computed"]`` and
``run.count["tokens skipped"]`` take the image tokens of every network call.

Furniture: ``_base.Tokens`` and ``_base.Watch``; ``dit_tools.nn.narrowing``.
"""
