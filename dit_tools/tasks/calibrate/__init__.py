"""``dit calibrate``: learning about a model what a cache must know before it can skip.

A file here makes the calibration of the cache of its name: ``calibrate(session) -> arrays``.
``session`` samples the model with things watched or put in between; ``run`` puts the result into a
file and judges it on prompts and seeds that it was not made from; ``presets`` measures the words of
``--cache fast`` on a model.
"""
