"""Looking over a pipeline's shoulder."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def shift_tokens(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the token count of every time shift that the pipeline computes."""
    module, seen = sys.modules[type(pipe).__module__], []
    plain = module.calculate_shift

    def spying(tokens: int, *rest: float) -> float:
        seen.append(tokens)
        return plain(tokens, *rest)

    monkeypatch.setattr(module, "calculate_shift", spying)
    return seen
