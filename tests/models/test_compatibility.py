"""Which models may share a run, and why others may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.models.compatibility import check_pair
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.support import pixart, sana, sd3

FACTS = {"revision": "0", "device": "cpu", "dtype": "float32"}


def model(pipe: Any, name: str = "first") -> Any:
    return model_from_pipeline(pipe, name=name, **FACTS)


def refusal(first: Any, second: Any) -> str:
    with pytest.raises(UnsupportedError) as caught:
        check_pair(first, second, "other")
    text = str(caught.value)
    assert text.startswith("--second-model other: ") and "\n" not in text
    return text


def test_a_sibling_of_another_depth_fits():
    first, second = model(pixart.pipeline()), model(pixart.pipeline(num_layers=1))
    check_pair(first, second, "other")


def test_half_precision_counts_as_the_same_autoencoder():
    first, second = model(pixart.pipeline()), model(pixart.pipeline())
    for parameter in second.pipe.vae.parameters():
        parameter.data = parameter.data.half().float()
    check_pair(first, second, "other")


def test_another_autoencoder_does_not():
    first, second = model(pixart.pipeline()), model(pixart.pipeline())
    torch.manual_seed(5)
    for parameter in second.pipe.vae.decoder.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    assert "its autoencoder is not that of first" in refusal(first, second)


def test_another_noise_path_does_not():
    assert "another noise path" in refusal(model(pixart.pipeline()), model(sd3.pipeline()))


def test_latents_of_another_shape_do_not():
    assert "its latents are" in refusal(model(sd3.pipeline()), model(sana.pipeline()))


def test_a_pipeline_that_runs_itself_does_not():
    first = model(pixart.pipeline())
    odd = replace(first, name="odd", pipeline=object())
    assert "the pipeline of odd runs through diffusers itself" in refusal(first, odd)
    assert "the pipeline of odd runs through diffusers itself" in refusal(odd, first)
