"""The same numbers as diffusers draws for a list of generators."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from dit_tools.core.errors import UsageError
from dit_tools.methods.noise.torch_cpu import TorchCpu


def test_equals_diffusers_randn_tensor():
    seeds = (0, 7, 2**32 - 1)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    stream = TorchCpu().stream((4, 6, 8), seeds)
    for _ in range(3):
        assert torch.equal(stream.fresh(), randn_tensor((3, 4, 6, 8), generator=generators))


def test_the_generators_can_be_handed_on():
    stream = TorchCpu().stream((2,), (1, 2))
    stream.fresh()
    wanted = torch.Generator("cpu").manual_seed(2)
    torch.randn((1, 2), generator=wanted)
    handed = torch.randn(3, generator=stream.generators[1])
    assert torch.equal(handed, torch.randn(3, generator=wanted))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    TorchCpu().draw((5,), (1, 2, 3))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [2**32, 2**32 + 7, 2**63 - 1])
def test_seeds_that_would_repeat_are_refused(seed):
    """The generator itself repeats: the reason for the refusal."""
    draws = [torch.randn(4, generator=torch.Generator().manual_seed(s)) for s in (seed, seed % 2**32)]
    assert torch.equal(*draws)
    with pytest.raises(UsageError, match=f"image of seed {seed % 2**32}"):
        TorchCpu().stream((2, 4, 5), (3, seed))
    assert TorchCpu().stream((2, 4, 5), (2**32 - 1,)).fresh().shape == (1, 2, 4, 5)
