"""Outputs that are whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from dit_tools.core.errors import InputError

PREFIX = ".dit-part-"
_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or write elsewhere with -o"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or write elsewhere with -o"),
    errno.EFBIG: ("the file is larger than this system allows", "write elsewhere with -o"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to with -o"),
    errno.EPERM: ("not permitted", "choose a folder that you may write to with -o"),
    errno.EROFS: ("the file system is read-only", "choose another folder with -o"),
    errno.ENOENT: ("the folder does not exist", "create it first, or choose another with -o"),
    errno.ENOTDIR: ("its folder is a file", "choose another folder with -o"),
    errno.EISDIR: ("it is a folder", "add a file name, or end it with /"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one with -o"),
}


def write_error(path: str | Path, error: OSError) -> InputError:
    """The InputError that names ``path``, says why it cannot be written, and what to do."""
    default = (error.strerror or str(error), "choose another path with -o")
    reason, hint = _REASONS.get(error.errno or 0, default)
    return InputError(f"{path}: cannot be written: {reason}", hint)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a hidden path beside ``path`` to write to; it takes the name when the block succeeds.

    The hidden name keeps the suffix, by which many writers choose a format. It is removed on any
    exception, KeyboardInterrupt and ``interrupt.Terminated`` included; after SIGKILL it stays until
    ``sweep``, while ``path`` itself is whole or untouched. An existing file's mode is kept; devices
    and pipes are written to directly. Only write in the block: any OSError of it is taken for a
    failed write of ``path``.

    Raises:
        InputError: the folder is missing or read-only, the disk is full, ``path`` is a folder...
    """
    # A link stays a link: the file that it points to is the one to replace.
    target = Path(os.path.realpath(path))
    part = target.parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}{target.suffix}"
    try:
        kind = _kind(target)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if kind not in (None, stat.S_IFREG):
            yield target  # a device or a pipe: replacing it would break it
            return
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        _settle(part, target)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _kind(path: Path) -> int | None:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _settle(part: Path, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)  # without it a crash can leave a renamed, empty file
    finally:
        os.close(descriptor)
    os.replace(part, path)


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, wholly or not at all; see ``atomic_path`` for the errors."""
    with atomic_path(path) as part, open(part, "wb") as stream:
        stream.write(data)


def sweep(folder: str | Path, older_than: float = 3600.0) -> int:
    """Remove what killed processes left in ``folder``; gives the number of files removed.

    Args:
        folder: where outputs were written; a missing one counts as empty.
        older_than: seconds since the last write, so that running processes keep their files.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for part in Path(folder).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > older_than:
                    part.unlink()
                    removed += 1
    return removed
