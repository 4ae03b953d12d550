"""Sampling: the one way to run a model.

``loop`` draws the starting noise and runs a solver; ``denoiser`` turns guidance branches into
batched network calls; ``sampler`` is a model that is asked with several prompts over one schedule.
"""
