"""The most memory that something took: of the accelerator, else of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Megabytes (1e6 bytes), known when the context is left; None where nobody can tell.

    On the CPU it is the resident memory of the whole process, model and libraries included.
    """

    mb: float | None = None


@contextmanager
def measure_peak(device: str, wanted: bool = True) -> Iterator[Peak]:
    """Measure what happens inside. ``wanted`` of False measures nothing.

    A CUDA device keeps count by itself. Linux keeps a high-water mark of a process that can be set
    back; other systems cannot tell.
    """
    peak = Peak()
    if not wanted:
        yield peak
    elif device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.mb = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    else:
        known = _reset()
        yield peak
        peak.mb = _high_water() if known else None


def _reset() -> bool:
    """Set the high-water mark back to what is in use; whether that was possible."""
    try:
        RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water() -> float | None:
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    marks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return round(int(marks[0]) * 1024 / 1e6, 1) if marks else None
