"""SoftPAG: against diffusers' own identity attention, in its limits, per head, and clean up."""

import pytest
import torch
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.run import RunState
from dit_tools.methods.guidance.soft_pag import SoftPag, heads_of
from dit_tools.nn.attention_perturbation import softened
from tests.support import small
from tests.support.branches import guided


@pytest.fixture(scope="module")
def model():
    return small.pixart()


@pytest.fixture(scope="module")
def inputs(model):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return model.family.inputs(x, 0.7, small.conditions(2)["cond"])


def perturbed(model, inputs, chosen, share):
    with softened(model.network.blocks(), chosen, share):
        return model.network(**inputs)


def test_share_one_is_diffusers_identity_attention(model, inputs, monkeypatch):
    ours = perturbed(model, inputs, {1: None, 2: None}, 1.0)
    for block in model.network.blocks()[1:3]:
        monkeypatch.setattr(block.module.attn1, "processor", PAGIdentitySelfAttnProcessor2_0())
    doubled = {k: torch.cat([v, v]) for k, v in inputs.items()}  # it perturbs the second half
    theirs = model.network(**doubled)[2:]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_share_zero_changes_nothing(model, inputs):
    assert torch.equal(perturbed(model, inputs, {0: None, 3: None}, 0.0), model.network(**inputs))


def test_the_perturbation_of_the_last_attention_is_affine_in_the_share(model, inputs):
    outputs = []
    attention = model.network.blocks()[3].module.attn1
    handle = attention.register_forward_hook(lambda m, a, out: outputs.append(out))
    for share in (0.0, 0.25, 1.0):
        perturbed(model, inputs, {3: None}, share)
    handle.remove()
    zero, quarter, one = outputs
    torch.testing.assert_close(quarter, 0.75 * zero + 0.25 * one, rtol=1e-4, atol=1e-5)
    assert not torch.equal(zero, one)


def test_heads_add_up_to_the_whole_block(model, inputs):
    both = perturbed(model, inputs, {2: [0, 1]}, 0.6)
    assert torch.equal(both, perturbed(model, inputs, {2: None}, 0.6))
    assert not torch.equal(both, perturbed(model, inputs, {2: [0]}, 0.6))


def test_the_guided_prediction(model):
    def evaluate(*branches):
        return tuple(small_prediction(b.name) for b in branches)

    def small_prediction(name):
        from dit_tools.core.paths import Flow
        from dit_tools.core.prediction import Prediction

        raw = torch.full((1, 1, 2, 2), {"cond": 2.0, "uncond": 1.0, "perturbed": 1.5}[name])
        return Prediction(raw, "flow", raw, 0.5, Flow())

    run = RunState((1.0, 0.0), 1)
    both = guided(SoftPag(scale=3.0, weight=2.0).begin(run), evaluate, None, 0.5)
    assert both.raw.unique().item() == pytest.approx(1.0 + 3.0 * 1.0 + 2.0 * 0.5)
    alone = guided(SoftPag(scale=1.0, weight=2.0).begin(run), evaluate, None, 0.5)
    assert alone.raw.unique().item() == 3.0


def test_a_run_counts_its_calls_and_leaves_no_hooks(model):
    plain, _ = small.final(model, small.conditions(), small.plan(steps=4))
    guided, run = small.final(model, small.conditions(), small.plan(steps=4, guidance="soft-pag:scale=3,depth=0..1"))
    assert run.count["network calls"] == 8  # both conditions in one call, the perturbed one alone
    assert not torch.equal(guided, plain)
    assert torch.equal(small.final(model, small.conditions(), small.plan(steps=4))[0], plain)


def test_it_keeps_a_cache_of_its_own_and_skips_with_it(model):
    cached = small.plan("taylorseer:interval=3,warmup=2", 9, "soft-pag:scale=1,share=1")
    _, run = small.final(model, small.conditions(), cached)
    assert run.count["blocks skipped"] > 0


def test_heads_are_read_and_refused():
    assert heads_of("all") is None
    assert heads_of("3.1+3.4+5.0") == {3: [1, 4], 5: [0]}
    for text in ("3", "a.b", "3.1+", "-1.0"):
        with pytest.raises(UsageError, match="--guidance soft-pag: heads="):
            spec.parse("guidance", f"soft-pag:heads={text}").begin(RunState((1.0, 0.0), 1))


@pytest.mark.parametrize("heads", ["9.0", "0.7"])
def test_a_head_that_is_not_there_is_refused(model, heads):
    chosen = small.plan(steps=2, guidance=f"soft-pag:scale=1,heads={heads}")
    with pytest.raises(UnsupportedError, match="--guidance soft-pag: no (block 9|head 7)"):
        small.final(model, small.conditions(), chosen)


def test_onnx_networks_are_refused():
    model = small.pixart()
    model.network.offers = frozenset()
    with pytest.raises(UnsupportedError, match="--guidance soft-pag.*--backend torch"):
        small.final(model, small.conditions(), small.plan(steps=2, guidance="soft-pag"))
