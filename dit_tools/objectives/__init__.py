"""Room of objectives: what a training step minimizes, beyond plain rectified flow.

A method gives a ``Term`` by ``begin(setting)``; the term holds the state of one run. A recipe lists
methods under ``objectives`` of its stage, ``dit train --objective`` adds more. None is on by
default: rectified flow with logit-normal times, squared error.

A term may choose times, couple noise to data, hook the network, replace the mean of the squared
error, and add a loss. What it trains beside the network (``module``) is kept in the checkpoint and
never in the exported model. Where it draws random numbers it takes ``view.rng``, so that a run
resumes to the bit.
"""
