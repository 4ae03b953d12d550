"""Room of adapters: what `dit train` trains beside a model that stays as it is.

A method attaches itself to a frozen transformer by ``attach(network, seed)`` and gives what
``nn.adapters.Attached`` promises: parameters, which are the only ones with gradients, and tensors
to save. Attached and untrained, it changes no bit of the network's output. The file that a training
leaves is taken by ``--lora PATH[:SCALE]`` of the sampling commands, whatever the method.
"""
