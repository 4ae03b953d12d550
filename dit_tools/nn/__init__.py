"""Torch code that methods need: the only home of ``torch.nn.Module`` and of module hooks.

Contract: everything here may import torch and diffusers at the top; methods import from here inside
their bodies, so that choosing a method never loads torch.

Helpers: ``hooks`` (``around_forward``: replace modules' forward while a context lasts).
"""
