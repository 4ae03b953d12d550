"""benchmarks/resting.py samples both ways, and only one of them lets threads rest."""

from __future__ import annotations

from argparse import Namespace

import onnxruntime
import pytest

from benchmarks import resting
from dit_tools.models import onnx_session


@pytest.mark.parametrize("way, told", [("resting", "1"), ("spinning", "")])
def test_both_ways_sample(monkeypatch: pytest.MonkeyPatch, way: str, told: str) -> None:
    monkeypatch.setattr(onnx_session, "open_session", onnx_session.open_session)  # put back behind the test
    real, found = onnxruntime.InferenceSession, set()

    def session(path, options, providers):
        try:
            found.add(options.get_session_config_entry("session.force_spinning_stop"))
        except RuntimeError:  # no such entry
            found.add("")
        return real(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    asked = Namespace(model="emoji", second_model="emoji-small", steps=2, batches=[1, 2])
    times = resting.sample(asked, way, times=1)
    runs = [run or "plain" for run in resting.RUNS]
    assert list(times) == [f"{run}, batch of {size}" for size in (1, 2) for run in runs]
    assert min(times.values()) > 0 and found == {told}
