"""Signals, sent to this process and to children."""

import os
import signal
import subprocess
import sys
import threading

import pytest

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


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    out, complaint = child.communicate(timeout=30)
    assert child.returncode == code
    wanted = ("finished\n", NOTICE + "\n") if number == signal.SIGINT else ("", "")
    assert (out, complaint) == wanted
