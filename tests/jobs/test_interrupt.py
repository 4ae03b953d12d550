"""Signals, sent to this process and to children."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dit_tools.jobs import interrupt
from dit_tools.jobs.interrupt import NOTICE, Interruptible, Terminated


def test_first_ctrl_c_asks_second_stops(capfd):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interruptible() as signals:
        assert not signals.stop_requested
        signal.raise_signal(signal.SIGINT)
        assert signals.stop_requested
        assert capfd.readouterr() == ("", NOTICE + "\n")
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_passes_except_exception_and_has_its_code():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as caught, Interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            pytest.fail("Terminated must not be an Exception")
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert interrupt.ended() is None  # that is for the program, which this is not


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruptible() as signals:
            signal.raise_signal(signal.SIGINT)
            assert not signals.stop_requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_change_nothing():
    seen = []

    def work():
        with Interruptible() as signals:
            seen.append((signal.getsignal(signal.SIGINT), signals.stop_requested))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_child_finishes_its_item(number, code):
    program = (
        "import sys, time\n"
        "from dit_tools.jobs.interrupt import Interruptible, Terminated\n"
        "try:\n"
        "    with Interruptible() as signals:\n"
        "        print('ready', flush=True)\n"
        "        while not signals.stop_requested: time.sleep(0.01)\n"
        "        print('finished')\n"
        "except Terminated as error: sys.exit(error.code)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    out, complaint = child.communicate(timeout=30)
    assert child.returncode == code
    wanted = ("finished\n", NOTICE + "\n") if number == signal.SIGINT else ("", "")
    assert (out, complaint) == wanted


PROGRAM = """
import os, signal, sys
from pathlib import Path
from dit_tools.jobs import interrupt
from dit_tools.jobs.atomic import PartFile
interrupt.arm()
with PartFile(Path(sys.argv[1])) as part:
    {}
"""
SWALLOWS = """
    try: os.kill(os.getpid(), signal.SIGTERM)
    except BaseException: print(interrupt.ended().value, flush=True)
    try: interrupt.check()
    except interrupt.Terminated: print("again", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
"""


def child(body, folder, **options):
    code = PROGRAM.format(body.strip())
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, **options)


@pytest.mark.parametrize("number, code", [("SIGTERM", 143), ("SIGHUP", 143), ("SIGINT", 130)])
def test_a_signal_during_an_import_ends_the_process_and_leaves_nothing(tmp_path, number, code):
    """An import may turn the exception into another one, or go on without the module."""
    (tmp_path / "mod").mkdir()
    (tmp_path / "mod/slow.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\n")
    body = f"""
    sys.path.insert(0, {str(tmp_path / "mod")!r})
    try: import slow
    except BaseException: print("caught")
    """
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}
    (tmp_path / "out").mkdir()
    done = child(body, tmp_path / "out", **reset)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "") and os.listdir(tmp_path / "out") == []


def test_a_swallowed_sigterm_is_raised_again_and_a_second_one_does_not_wait(tmp_path):
    done = child(SWALLOWS, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (143, "143\nagain\n", "")
    assert os.listdir(tmp_path) == []


def test_under_nohup_sighup_stays_ignored(tmp_path):
    body = "os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    done = child(body, tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, "alive\n")
