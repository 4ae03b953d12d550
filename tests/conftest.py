"""What every test process shares: one thread, and property tests that repeat in CI."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Elsewhere they look for new examples; in CI a change must not fail for another one's finding.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "explore")
