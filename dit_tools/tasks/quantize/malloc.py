"""Freed memory that goes back to the system at once."""

from __future__ import annotations

import ctypes
import sys

BLOCK = 1 << 19
"""Bytes from which on a block is given back when it is freed: twice the copies of what is worked on
at a time (``quantize._base.PIECE``). Those stay in the heap and are used again: taken from the
system each time, they made fp4 a third slower."""
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def give_back_freed() -> bool:
    """Make glibc return blocks of ``BLOCK`` on, for this process; whether that was possible.

    By itself it raises that bound with every larger block that is freed, up to 32 MB, and keeps
    what is smaller in its heap, in holes that the next layer's blocks do not fit into.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BLOCK))
    except (AttributeError, OSError):  # another C library
        return False


def trim_heap() -> bool:
    """Give back what is free within glibc's heap now; whether something was.

    Smaller blocks leave holes there, which add up from layer to layer.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError):  # another C library
        return False
