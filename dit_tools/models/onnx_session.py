"""Opening a graph in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def open_session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Any:
    """A session for a graph, without warnings, whose threads rest between calls.

    By default they spin on for a while, against other graphs that have their turn then: next to the
    text encoder's and the decoder's threads an image on two cores took 1.9 times as long
    (``benchmarks/resting.py``).
    """
    runtime: Any = import_module("onnxruntime")  # it has no types
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return runtime.InferenceSession(path, options, providers=list(providers))
