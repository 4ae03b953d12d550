"""Schemes of ``dit quantize --scheme``: how a linear layer's weight becomes packed tensors.

Contract (``_base.Scheme``): ``layout(rows, columns)`` says how it will lie in the file, before any
weight is read; ``pack(weight, layout, seen)`` gives the tensors of that layout. ``calibration``
names the inputs that the scheme wants to have seen, or is empty.
"""
