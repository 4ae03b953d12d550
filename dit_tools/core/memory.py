"""How much memory is left, asked before something large is allocated."""

from __future__ import annotations

from pathlib import Path

from dit_tools.core.errors import MemoryLimitError

_SYSTEM = Path("/proc/meminfo")
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def available() -> int | None:
    """Bytes that this process may still take; None where the system does not tell.

    The least of what the system has free, what a container allows and what ``ulimit -v`` leaves.
    """
    found = [count for count in (_free(), _container(), _address_space()) if count is not None]
    return max(min(found), 0) if found else None


def require(count: int, what: str, hint: str = "use a smaller image") -> None:
    """Raise MemoryLimitError with the figures when ``count`` bytes are not to be had.

    Args:
        count: bytes that the work is known to take at least.
        what: what needs them, as the start of a sentence.
        hint: what the user can do.
    """
    left = available()
    if left is not None and count > left:
        raise MemoryLimitError(f"{what} needs {_gigabytes(count)} of memory, {_gigabytes(left)} are free", hint)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _free() -> int | None:
    try:
        lines = _SYSTEM.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _container() -> int | None:
    for limit, current in _LIMITS:
        try:
            return int(limit.read_text(encoding="ascii")) - int(current.read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return None


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return None
    return limit - taken
