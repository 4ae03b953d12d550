"""What all layers share: errors, the method registry, specs, arrays, paths and predictions.

Nothing here imports torch, numpy, diffusers or any other layer.
"""
