"""Outputs are whole or absent: full disks, missing folders, exceptions, signals, kills."""

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time

import pytest

from dit_tools.core.errors import InputError
from dit_tools.jobs import atomic
from dit_tools.jobs.atomic import PartFile, atomic_path, atomic_write, remove_leftovers


def test_writes_and_replaces_keeping_the_mode(tmp_path):
    path = tmp_path / "a.png"
    atomic_write(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    path.chmod(0o640)
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.png"]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_hidden_name_is_in_the_folder_with_the_suffix(tmp_path):
    with atomic_path(tmp_path / "film.mp4") as part:
        assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == ".mp4"
        assert not (tmp_path / "film.mp4").exists()
        part.write_bytes(b"x")
    assert os.listdir(tmp_path) == ["film.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_path(path) as part:
        part.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_a_writer_that_replaces_the_hidden_file_is_fine(tmp_path):
    with atomic_path(tmp_path / "a.bin") as part:
        part.unlink()
        part.write_bytes(b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_reasons(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path, word in (
        (tmp_path / "no" / "a.png", "create it first"),
        (tmp_path / "file" / "a.png", "its folder is a file"),
        (tmp_path, "it is a folder"),
        (tmp_path / ("n" * 300), "too long"),
        ("/proc/a.png", "/proc/a.png"),  # not writable for root either
    ):
        with pytest.raises(InputError, match="cannot be written") as caught:
            atomic_write(path, b"x")
        assert word in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_read_only_folder():
    folder = tempfile.mkdtemp()  # not in tmp_path, whose parents only their owner may enter
    os.chmod(folder, 0o555)
    root = os.geteuid() == 0
    try:
        if root:  # who may write everywhere
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"a\.png: cannot be written: permission denied"):
            atomic_write(f"{folder}/a.png", b"x")
    finally:
        if root:
            os.seteuid(0)
    assert os.listdir(folder) == []
    os.rmdir(folder)


def test_no_space_says_so(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(InputError, match="disk is full; free some space"):
        atomic_write(tmp_path / "a.png", b"x")
    assert os.listdir(tmp_path) == []


def run(code, folder, **options):
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE, text=True, **options)


def test_a_disk_that_fills_up_while_writing(tmp_path):
    """A real failing write(2): the file size limit stands in for the full disk."""
    (tmp_path / "a.png").write_bytes(b"old")
    code = (
        "import sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from dit_tools.jobs.atomic import atomic_write\n"
        "from dit_tools.core.errors import InputError\n"
        "try: atomic_write(sys.argv[1] + '/a.png', b'x' * 100_000)\n"
        "except InputError as error: print(error, file=sys.stderr); sys.exit(error.code)\n"
    )
    limit = (20_000, 20_000)
    child = run(code, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, complaint = child.communicate(timeout=30)
    assert child.returncode == 4 and "a.png: cannot be written" in complaint
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


# Sleeps are short: a signal that comes between two calls is only heard after the next one.
SLOW = (
    "import sys, time\n"
    "from dit_tools.jobs.atomic import atomic_path\n"
    "from dit_tools.jobs.interrupt import Interruptible, Terminated\n"
    "try:\n"
    "    with Interruptible(), atomic_path(sys.argv[1] + '/a.png') as part:\n"
    "        part.write_bytes(b'half'); print('ready', file=sys.stderr, flush=True)\n"
    "        for _ in range(600): time.sleep(0.05)\n"
    "except Terminated as error: sys.exit(error.code)\n"
)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_killed_process_leaves_no_half_output(tmp_path, number, code):
    (tmp_path / "a.png").write_bytes(b"old")
    child = run(SLOW, tmp_path)
    assert child.stderr.readline() == "ready\n"
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode == code and (tmp_path / "a.png").read_bytes() == b"old"
    if number == signal.SIGKILL:  # nobody could clean up: the next run sweeps
        assert len(os.listdir(tmp_path)) == 2
        assert remove_leftovers(tmp_path) == 1
    assert os.listdir(tmp_path) == ["a.png"]


def test_sweep_takes_old_parts_only(tmp_path):
    for name in (".dit-part-1-a.png", ".dit-part-2-b.png", "kept.png"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / ".dit-part-1-a.png", (time.time() - 7200,) * 2)
    os.utime(tmp_path / "kept.png", (0, 0))
    assert remove_leftovers(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".dit-part-2-b.png", "kept.png"]
    assert remove_leftovers(tmp_path / "missing") == 0


def test_links_and_devices_are_respected(tmp_path):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    atomic_write(tmp_path / "link.png", b"new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"
    atomic_write("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_name_is_taken_only_where_it_is_free(tmp_path):
    taken, free = tmp_path / "taken.png", tmp_path / "free.png"
    taken.write_bytes(b"theirs")
    with PartFile(tmp_path, ".png") as part:
        part.path.write_bytes(b"ours")
        with pytest.raises(FileExistsError):
            part.put(taken)
        part.put(free)
    assert (taken.read_bytes(), free.read_bytes()) == (b"theirs", b"ours")
    assert sorted(os.listdir(tmp_path)) == ["free.png", "taken.png"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", refuse)
    (tmp_path / "taken").write_bytes(b"theirs")
    with PartFile(tmp_path) as part:
        part.path.write_bytes(b"ours")
        with pytest.raises(FileExistsError):
            part.put(tmp_path / "taken")
        part.put(tmp_path / "free")
    assert (tmp_path / "taken").read_bytes() == b"theirs" and (tmp_path / "free").read_bytes() == b"ours"
    assert sorted(os.listdir(tmp_path)) == ["free", "taken"]


def test_sweep_leaves_what_a_living_process_holds(tmp_path):
    child = run(SLOW, tmp_path)
    assert child.stderr.readline() == "ready\n"
    (held,) = [name for name in os.listdir(tmp_path) if name.startswith(atomic.PREFIX)]
    os.utime(tmp_path / held, (0, 0))  # old, and yet in use
    recycled = held.split("-")
    recycled[4] = str(int(recycled[4]) + 1)  # the id belongs to a process that began later
    (tmp_path / "-".join(recycled)).write_bytes(b"left")
    assert remove_leftovers(tmp_path) == 1 and held in os.listdir(tmp_path)
    child.kill()
    child.communicate()
    atomic_write(tmp_path / "b.png", b"x")  # the next write to the folder sweeps by itself
    assert os.listdir(tmp_path) == ["b.png"]


def test_sweep_takes_folders_of_dead_processes_and_never_others(tmp_path):
    dead = atomic.part_name().split("-")
    dead[3] = "999999999"
    for name in ("-".join(dead), f"{atomic.PREFIX}0123456789abcdef-x", atomic.part_name()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"x")
    os.symlink(tmp_path / atomic.part_name(), tmp_path / "-".join([*dead[:-1], "0" * 8]))
    assert remove_leftovers(tmp_path, older_than=-1) == 1
    assert not (tmp_path / "-".join(dead)).exists() and len(os.listdir(tmp_path)) == 3
