"""The library under the ``dit`` commands: rooms for every joint of a diffusion-transformer run."""

__version__ = "0.1.0"
