"""Freed blocks go back to the system, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys
from dit_tools.weights.heap import give_back_freed

def anonymous():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == 'yes':
    assert give_back_freed()
size = 24 << 20
libc.free(libc.malloc(size))  # glibc raises its bound to the size of this one
blocks = [libc.malloc(size) for _ in range(4)]
for block in blocks:
    ctypes.memset(block, 1, size)
full = anonymous()
for block in blocks[:-1]:  # the last one stays, and the heap's end with it
    libc.free(block)
print((full - anonymous()) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_holes_go_back_to_the_system() -> None:
    given = {
        word: int(subprocess.check_output([sys.executable, "-c", SCRIPT, word], text=True))
        for word in ("yes", "no")
    }
    assert given["yes"] >= 70  # of 72 MB
    assert given["no"] < 10
