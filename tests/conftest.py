"""What every test process shares: one thread, repeatable property tests, signals as on a terminal, slow marks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A suite that a script starts with "&" ignores SIGINT and hands that down to the programs that it
# starts, which then go on for ever where a test presses Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Elsewhere they look for new examples; in CI a change must not fail for another one's finding.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "explore")

SLOW = Path(__file__).with_name("slow.txt")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that ``slow.txt`` names. Raises UsageError for names of no test when all tests are collected."""
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = set()
    for item in items:
        for name in names:
            if item.nodeid.startswith(name):
                item.add_marker(pytest.mark.slow)
                found.add(name)
    stale = sorted(set(names) - found)
    if stale and config.args == config.getini("testpaths") and not config.option.ignore:
        raise pytest.UsageError(f"{SLOW.name} names no test: {', '.join(stale)}")
