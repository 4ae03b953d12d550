"""Steering: several seeds are tried, and one is kept before it is finished (``dit edit --steer``).

Contract: ``seeds(first)`` are the candidates, ``steer(run, seeds, pixels, decode)`` gives the seed
that is kept and its latents. ``run(seed, watch)`` makes the whole edit of one; every denoiser goes
through ``watch(denoise, names)`` first, which may count its calls, look at its answers, give
answers that it knows, or end the run by an exception of its own. With one candidate the first seed
is run untouched.

Furniture: ``_base`` (``Steering``, ``Run``).
"""
