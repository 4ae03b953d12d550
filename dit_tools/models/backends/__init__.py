"""Backends: one call for a network, whatever runs it (PyTorch, ONNX Runtime, a diffusers pipeline)."""
