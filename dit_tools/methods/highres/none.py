"""One run at the size that was asked for."""

from __future__ import annotations

from dit_tools.core.registry import method
from dit_tools.methods.highres import HighRes


@method(identity={})
class OneRun(HighRes):
    """Sample at the size that was asked for, with the network as it is."""
