"""The wavelet codec: an image as integers, and integers as few bytes.

``transform`` turns an image into subbands and back, ``quantize`` makes integers of them with a
thought for the bits, ``contexts`` and ``entropy`` code these with the integer ``tables`` that were
counted from photographs. Only ``quantize`` and ``transform`` use floating point, and nothing that
they compute decides how a byte is read.
"""
