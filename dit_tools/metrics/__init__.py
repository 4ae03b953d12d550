"""Metrics: numbers about pictures (``dit eval --metric``).

Contract: ``begin() -> meter``, fresh for every run; ``meter.update(a, b)`` takes batches of
pictures (B, C, H, W), float in [0, 1], numpy; ``meter.value() -> float``. A metric declares its
``unit`` and whether ``higher_is_better``. Arrays are numpy: a metric imports it in its body.

Metrics of pairs need only ``of(a, b)``, one value per pair (furniture ``_base.Pairwise``)::

    from dit_tools.metrics.psnr import Psnr
    decibels = Psnr().of(pictures, references)     # (B,)
    mean = Psnr().mean(pictures, references)       # float
"""
