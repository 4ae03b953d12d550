"""Exporting: networks as ONNX graphs, checked against torch before they are kept.

Furniture: ``trace`` (one torch module to one graph), ``shared_weights`` (graphs whose initializers are
byte ranges of safetensors files), ``builtin`` (a trained pipeline folder to a shipped model).
"""
