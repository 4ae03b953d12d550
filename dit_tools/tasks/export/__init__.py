"""Exporting: networks as ONNX graphs, checked against torch before they are kept.

``export.export`` makes of a model's folder another one with graphs, after ``preflight.check``.
``recipes/`` knows how each family's transformer is traced; a new family is one file there.

Modules: ``graphs`` (what is traced, on which examples), ``write`` (one graph to a checked file),
``trace`` (one torch module to one graph), ``shared_weights`` (graphs whose initializers are byte
ranges of safetensors files), ``int8`` (dynamic quantization), ``builtin`` (a trained pipeline
folder to a shipped model).
"""
