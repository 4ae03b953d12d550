"""Inversion: from clean latents back to the noise that makes them (``--inversion``).

Contract: ``invert(denoise, x0, times, noise) -> Inverted``: the latents at ``times[0]``, and
``state``, named arrays that the way back needs besides them (the other half of a pair, a
trajectory). ``back(state)`` is the solver for the way back; it takes the same times. ``times`` fall
and end at 0; ``usable`` cuts off those that a method cannot divide by. ``denoise`` is guided
already; arrays are numpy or torch alike, in whatever precision ``x0`` has.

Example::

    chosen = spec.parse("inversion", "edict")
    times = chosen.usable(plan.times(model, x0.shape), model.path)
    found = chosen.invert(denoise, x0, times, noise)
    *_, last = chosen.back(found.state).steps(denoise, found.noise, times, noise)   # last.x is x0

Furniture: ``_base`` (``Inversion``, ``Inverted``, ``relate``, ``shift``), ``_latent`` (the file of
``dit invert``).
"""
