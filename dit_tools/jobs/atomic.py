"""Outputs that are whole or absent: write a hidden part file, flush it to disk, give it its name.

Two ways to give the name: ``atomic_path`` and ``atomic_write`` replace what is there; ``PartFile``
puts a file in place only where nothing is there yet, so that two runs never take one name. Part
files of processes that were killed are removed by the next write to their folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dit_tools.core.errors import InputError
from dit_tools.jobs import interrupt

PREFIX = ".dit-part-"
FOREIGN_SECONDS = 3600.0
"""Age at which the part file of another machine, which cannot be asked, counts as left behind."""
_OWNED = re.compile(re.escape(PREFIX) + r"(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<born>[0-9]+)-[0-9a-f]{8}")
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
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def write_error(path: str | Path, error: OSError) -> InputError:
    """The InputError that names ``path``, says why it cannot be written, and what to do."""
    default = (error.strerror or str(error), "choose another path with -o")
    reason, hint = _REASONS.get(error.errno or 0, default)
    return InputError(f"{path}: cannot be written: {reason}", hint)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a hidden path in the folder of ``path`` to write to; it takes the name when the block succeeds.

    The hidden name keeps the suffix, by which many writers choose a format. It is removed on any
    exception, KeyboardInterrupt and ``interrupt.Terminated`` included; after SIGKILL it stays until
    the next write to the folder, while ``path`` itself is whole or untouched. An existing file's
    mode is kept; devices and pipes are written to directly. Only write in the block: any OSError
    of it is taken for a failed write of ``path``.

    Raises:
        InputError: the folder is missing or read-only, the disk is full, ``path`` is a folder...
    """
    # A link stays a link: the file that it points to is the one to replace.
    target = Path(os.path.realpath(path))
    try:
        kind = _kind(target)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if kind not in (None, stat.S_IFREG):
            yield target  # a device or a pipe: replacing it would break it
            return
        with PartFile(target.parent, target.suffix) as part:
            yield part.path
            part.replace(target)
    except OSError as error:
        raise write_error(path, error) from error


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, wholly or not at all; see ``atomic_path`` for the errors."""
    with atomic_path(path) as part, open(part, "wb") as stream:
        stream.write(data)


class PartFile:
    """A hidden file of this process in ``folder``; it goes away at the end of the block.

    ``path`` is written to; then ``put`` or ``replace`` gives it its name. Raises OSError.
    """

    def __init__(self, folder: Path, suffix: str = ""):
        self.folder, self.path = folder, folder / part_name(suffix)

    def __enter__(self) -> PartFile:
        _sweep_once(str(self.folder))
        interrupt.temporary.add(self.path)
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        interrupt.temporary.discard(self.path)

    def flush(self) -> None:
        """Wait until the content is on the disk: a crash could leave a named, empty file."""
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, target: Path) -> None:
        """Take the name ``target``, in place of a file that has it and with that file's mode."""
        with contextlib.suppress(FileNotFoundError):
            os.chmod(self.path, stat.S_IMODE(os.stat(target).st_mode))
        self.flush()
        os.replace(self.path, target)

    def put(self, target: Path) -> None:
        """Take the name ``target``. Raises FileExistsError when anything has it, and changes nothing."""
        try:
            os.link(self.path, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links: an empty file reserves the name for a moment.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            os.replace(self.path, target)


def _kind(path: Path) -> int | None:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def remove_leftovers(folder: str | Path, older_than: float = FOREIGN_SECONDS) -> int:
    """Remove the part files and folders that killed processes left in ``folder``; gives the number removed.

    One of a process of this machine is removed when that process is gone, never while it runs.

    Args:
        folder: where outputs are written; a missing one counts as empty.
        older_than: seconds since the last write to a file of another machine, or of unknown origin.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if not entry.name.startswith(PREFIX):
                continue
            with contextlib.suppress(OSError):
                folder_too = _OWNED.match(entry.name) is not None and entry.is_dir(follow_symlinks=False)
                if not (folder_too or entry.is_file(follow_symlinks=False)) or not _left_behind(entry, older_than):
                    continue
                if folder_too:
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
                removed += 1
    return removed


def _left_behind(entry: os.DirEntry[str], older_than: float) -> bool:
    owned = _OWNED.match(entry.name)
    if owned is not None and owned["host"] == _host():
        return not _lives(int(owned["pid"]), int(owned["born"]))
    return time.time() - entry.stat().st_mtime > older_than


@cache
def _sweep_once(folder: str) -> None:
    remove_leftovers(folder)


def part_name(suffix: str = "") -> str:
    """The name of a new part file or folder of this process: its machine, process id and time of birth."""
    pid = os.getpid()
    return f"{PREFIX}{_host()}-{pid}-{_born(pid) or 0}-{secrets.token_hex(4)}{suffix}"


@cache
def _host() -> str:
    """The machine, its boot and its process namespace: where a process id means something."""
    import platform

    told = [platform.node()]
    with contextlib.suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _born(pid: int) -> int | None:
    """Start time of a running process, in ticks since boot; 0 where unknown, None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return None if sys.platform == "linux" else 0
    except (OSError, IndexError, ValueError):
        return 0


def _lives(pid: int, born: int) -> bool:
    """Whether the process that began at ``born`` still runs; its id may belong to another one by now."""
    now = _born(pid)
    if now is None:
        return False
    if now and born:
        return now == born
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, as another user
    return True
