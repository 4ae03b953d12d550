"""``--offload``: what is refused without a GPU, what diffusers is asked to do with one.

No GPU is needed: group offload with the CPU as the device to load onto runs the same hooks.
"""

from __future__ import annotations

import pytest
import torch

from dit_tools.core.errors import ExitCode, UnsupportedError, UsageError
from dit_tools.models.loading import lora
from dit_tools.models.loading.load import load
from dit_tools.models.loading.torch_loader import place
from tests.models.families.golden import model_from
from tests.support import flux, pixart, sd3
from tests.support.loading import draw
from tests.support.loras import write


@pytest.mark.parametrize("offload", ["model", "group"])
def test_offload_without_a_gpu_is_refused_before_anything_is_loaded(offload, tmp_path):
    sd3.pipeline(tmp_path / "model")
    with pytest.raises(UnsupportedError, match=f"--offload {offload}") as caught:
        load(str(tmp_path / "model"), device="cpu", offload=offload)
    assert caught.value.code == ExitCode.UNSUPPORTED
    with pytest.raises(UsageError, match="--offload disk"):
        load(str(tmp_path / "model"), device="cpu", offload="disk")


@pytest.mark.parametrize("family", [sd3, pixart, flux])
def test_group_offload_onto_the_cpu_gives_the_same_picture(family):
    expected, pixels = draw(model_from(family.pipeline()))
    pipe = family.pipeline()
    place(pipe, "cpu", "group")
    hooks = [m for m in pipe.transformer.modules() if getattr(m, "_diffusers_hook", None)]
    assert hooks, "no hook was attached, so the test proves nothing"
    x, other = draw(model_from(pipe))
    assert torch.equal(x, expected)
    assert (pixels == other).all()


def test_a_lora_goes_with_offload(tmp_path):
    path = write(tmp_path, sd3.pipeline().transformer)
    plain, _ = draw(model_from(sd3.pipeline()))
    made = []
    for offload in (None, "group"):
        pipe = sd3.pipeline()
        lora.apply(pipe, [lora.Lora(path, 1.0)])
        place(pipe, "cpu", offload)
        made.append(draw(model_from(pipe))[0])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], plain)


def test_diffusers_is_told_the_device():
    calls = {}

    class Pipe:
        def enable_model_cpu_offload(self, **options):
            calls["model"] = options

        def enable_group_offload(self, **options):
            calls["group"] = options

        def to(self, device):
            calls["to"] = device

    for offload in ("model", "group", None):
        place(Pipe(), "cuda:1", offload)
    assert calls["model"] == {"device": "cuda:1"}
    assert calls["group"]["onload_device"] == torch.device("cuda:1")
    assert calls["group"]["offload_device"] == torch.device("cpu")
    assert calls["to"] == "cuda:1"
