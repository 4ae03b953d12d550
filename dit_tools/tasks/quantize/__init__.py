"""Changing a model's weights for the better: smaller files that still run.

``quantize/`` is a category of methods (``dit quantize --scheme``). The engine: ``layers`` (what is
packed, how, and how large that gets), ``stream`` (safetensors written tensor by tensor),
``calibrate`` (what layers are fed), ``allocate`` (bits per layer), ``verdict`` (what it cost),
``run`` (all of it).
"""
