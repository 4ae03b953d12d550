"""What every room shares: errors, the method registry, specs, arrays, paths and predictions.

Nothing here imports torch, numpy, diffusers or any other room.
"""
