"""Attention: compute the softmax of self-attention over fewer pairs (``--attention``).

Contract: ``attach(blocks, run) -> context manager``. Inside it the image tokens' self-attention
costs less. ``blocks`` is the list of ``models.blocks``; ``run.grid`` says rows and columns of image
tokens, ``run.branches`` which branches this call is for. State is born in ``attach``, keyed by
``run.branches``, and dies with it. At its identity parameters a method is bit-equal to none.
``run.count["attention pairs"]`` takes the pairs of query and key that were computed, and
``run.count["attention pairs saved"]`` those that were not.

Furniture: ``_base.Attention``; ``dit_tools.nn.attending`` (one place that stands in for the softmax
product of every family), ``dit_tools.nn.windows``.
"""
