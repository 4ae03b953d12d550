"""Freed blocks go back to the system, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dit_tools.methods import quantization
from dit_tools.tasks.quantize import malloc

SCRIPT = """
import ctypes, sys
from dit_tools.tasks.quantize.malloc import give_back_freed, trim_heap

def anonymous():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == 'yes':
    assert give_back_freed()
size, count = int(sys.argv[2]), (96 << 20) // int(sys.argv[2])
libc.free(libc.malloc(size))  # glibc raises its bound to the size of this one
blocks = [libc.malloc(size) for _ in range(count)]
for block in blocks:
    ctypes.memset(block, 1, size)
full = anonymous()
for block in blocks[:-1]:  # the last one stays, and the heap's end with it
    libc.free(block)
if sys.argv[1] == 'trim':
    assert trim_heap()
print((full - anonymous()) // 1024)
"""


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")


def given_back(how: str, size: int) -> int:
    """MB of 96 that go back when all blocks but the last, of ``size`` bytes, are freed."""
    command = [sys.executable, "-c", SCRIPT, how, str(size)]
    return int(subprocess.check_output(command, text=True))


@LINUX
@pytest.mark.parametrize("size", [24 << 20, malloc.BLOCK])
def test_holes_go_back_to_the_system(size: int) -> None:
    assert given_back("yes", size) >= 70
    assert given_back("no", size) < 10


@LINUX
def test_smaller_holes_go_back_when_the_heap_is_trimmed() -> None:
    """Among them copies of what is worked on, that are used again before that."""
    size = 4 * quantization.BLOCK_WEIGHTS
    assert size <= malloc.BLOCK // 2
    assert given_back("yes", size) < 10
    assert given_back("trim", size) >= 70
