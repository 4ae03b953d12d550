"""Caching: skip network blocks whose outputs can be forecast (``--cache``).

Contract: ``attach(blocks, run) -> context manager``. Inside it the network computes less. ``blocks``
is the flat list that ``models.blocks`` makes; ``run`` tells which call this is (``run.call``), which
branches it is for (``run.branches``), and takes counts (``run.count``). State is born in ``attach``,
keyed by ``run.branches``, and dies with it. At its identity parameters a cache is bit-equal to none.

Furniture: ``_base.Cache``.
"""
