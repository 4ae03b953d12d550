"""Editing by attention: prompt-to-prompt and mutual self-attention, and the maps they work on."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.blocks import CROSS, Block, BlockSpec
from dit_tools.core.errors import UnsupportedError
from dit_tools.jobs.models import open_sampler
from dit_tools.jobs.settings import merge_settings
from dit_tools.methods.editing._source_target_pair import invert_pair, token_count
from dit_tools.models.loading.load import load
from dit_tools.models.prompt_tokens import PADDING, align_tokens, token_positions
from dit_tools.nn.attention_control import ALL, AttentionCall, control_attention, replace_text_maps, text_maps
from dit_tools.nn.attention_injection import Appearance, Maps, PromptToPrompt
from tests.methods.editing import test_methods as methods

FAMILIES = ("pixart", "sd3", "flux", "sana")


def of(text):
    return spec.parse("editing", text)


@functools.cache
def emoji():
    return load("emoji", backend="torch")


def scene_of(family="emoji", source="a red apple", target="a green apple", mask=None, **values):
    if family != "emoji":
        return methods.scene_of(family, source, target, mask=mask, **values)
    session = open_sampler(emoji(), merge_settings([methods.QUICK, values]))
    x0 = torch.randn(1, *session.shape, generator=torch.Generator().manual_seed(1))
    scene = methods.scene_of("emoji", source, target, **values)
    scene.session, scene.x0 = session, x0
    scene.mask = None if mask is None else torch.as_tensor(mask)
    return scene


def controlled(scene, control):
    blocks = scene.session.model.network.blocks()
    return control_attention(blocks, lambda: token_count(scene), control, "--x", kinds=ALL, same_places=True)


def rows(scene, control, target=None):
    """The target and its source after a run of equal starts, the source held to nothing."""
    both = invert_pair(scene, scene.times, 1.0, 3.0)
    x = torch.cat([both.trajectory[-1]] * 2)
    with controlled(scene, control(scene, both)):
        for t in scene.times[:-1]:
            p = both.denoise(x, t)
    return p.raw[:1], p.raw[1:]


def everything(scene, both):
    """A control that shares all there is."""
    family, pipe = scene.session.model.family, scene.session.model.pipe
    ids = [family.words(pipe, text, both.length) for text in (scene.source, scene.target)]
    pairs, _, new = align_tokens(*ids)
    return PromptToPrompt(scene.session.state, pairs, new, 0.0, 0.0)


@pytest.mark.parametrize("family", ["emoji", *FAMILIES])
def test_the_same_prompt_makes_target_and_source_equal_bit_for_bit(family):
    for control in (everything, lambda scene, both: Appearance(scene.session.state, 1.0, 0.0)):
        source, target = rows(scene_of(family, "a cat", "a cat"), control)
        assert torch.equal(source, target)


@pytest.mark.parametrize("name", ["prompt-to-prompt:cross=0,structure=0", "masactrl:start=1"])
@pytest.mark.parametrize("family", ["emoji", *FAMILIES])
def test_without_control_it_is_the_edit_by_direct_inversion(family, name):
    scene = scene_of(family)
    made = of(name).edit(scene)
    other = scene_of(family)
    other.inversion = spec.parse("inversion", "direct")
    plain = of("inversion:strength=1,target_scale=3").edit(other)
    assert torch.allclose(made, plain, atol=1e-5)


@pytest.mark.parametrize("family", ["emoji", "sd3", "flux"])
@pytest.mark.parametrize("part", ["cross", "structure"])
def test_shared_maps_bring_the_target_nearer_to_the_source(family, part):
    free = of("prompt-to-prompt:cross=0,structure=0").edit(scene_of(family))
    other = {"cross": "structure", "structure": "cross"}[part]
    held = of(f"prompt-to-prompt:{part}=1,{other}=0").edit(scene_of(family))
    scene = scene_of(family)
    assert not torch.allclose(free, held, atol=1e-6)
    if family == "emoji":
        assert abs(held - scene.x0).mean() < abs(free - scene.x0).mean()


def call_of(kind, queries, first, text, batch=2):
    g = torch.Generator().manual_seed(0)
    keys = queries if kind != CROSS else text
    q, k, v = (torch.randn(batch, 2, n, 4, generator=g) for n in (queries, keys, keys))
    return AttentionCall(0, 0, 1, kind, 6, first, q, k, v, None, {})


@pytest.mark.parametrize("call", [call_of("joint", 9, 0, 3), call_of("joint", 9, 3, 3), call_of("cross", 6, 0, 3)])
def test_replaced_maps_sum_to_one_and_hold_the_text_maps_given(call):
    maps = call.probabilities()
    assert torch.allclose(call.apply(maps), call.run(), atol=1e-6)
    made = replace_text_maps(call, maps, text_maps(call, maps).flip(-1) * 0.9)
    assert torch.allclose(made.sum(-1), torch.ones(()), atol=1e-6)
    wanted = text_maps(call, maps).flip(-1) * (0.9 if call.kind == "joint" else 1.0)
    assert torch.allclose(text_maps(call, made), wanted, atol=1e-6)
    assert torch.equal(replace_text_maps(call, maps, text_maps(call, maps)), maps)


def test_an_appearance_takes_keys_and_values_of_image_tokens_alone():
    call = call_of("joint", 9, 3, 3)
    run = scene_of("sd3").session.state
    made = Appearance(run, 1.0, 0.0)(call)
    k, v = call.k.clone(), call.v.clone()
    k[1, :, 3:], v[1, :, 3:] = k[0, :, 3:], v[0, :, 3:]
    assert torch.equal(made, call.having(k=k, v=v).run())


def test_words_are_aligned_as_they_stand():
    source, target = [5, 6, 7, PADDING], [5, 8, 9, 7]
    pairs, old, new = align_tokens(source, target)
    assert (old, new) == ([1], [1, 2])
    assert (0, 0, 1.0) in pairs and (2, 3, 1.0) in pairs
    assert {(1, 1, 0.5), (1, 2, 0.5)} <= set(pairs)
    assert (1, 1, 0.5) not in align_tokens(source, target, swap=False)[0]


@pytest.mark.parametrize("family", ["emoji", *FAMILIES])
def test_the_words_of_a_family_are_found_where_its_text_states_change(family):
    """Changing one word changes the first text state at the position that is said to hold it."""
    scene = scene_of(family)
    model = scene.session.model
    states = []
    for text in ("a cat", "a house"):
        conditions = []
        scene.prompted([text], 1.0, change=lambda c, seen=conditions: seen.append(c) or c)
        states.append(conditions[0]["cond"]["encoder_hidden_states"][0])
    length = len(states[0])
    one, two = (model.family.words(model.pipe, text, length) for text in ("a cat", "a house"))
    assert len(one) == length
    first = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
    if family == "sana":  # a causal encoder: nothing before the change can differ
        differs = (states[0] - states[1]).abs().amax(-1) > 1e-6
        assert int(differs.nonzero()[0]) == first
    spell = functools.partial(model.family.words, model.pipe, length=length)
    assert token_positions(spell, "a cat", "Cat")[0] == first
    assert len(token_positions(spell, "a cat, a cat", "a cat")) == 2 * len(token_positions(spell, "a cat", "a cat"))
    assert token_positions(spell, "a cat", "at") == token_positions(spell, "a cat", "dog") == []


def test_attention_to_new_words_can_be_raised():
    plain, more = (
        of(f"prompt-to-prompt:boost={b}").edit(scene_of(source="cat", target="cat sunglasses")) for b in (1, 5)
    )
    assert not torch.allclose(plain, more, atol=1e-4)


def test_blending_and_masks_keep_the_source_where_nothing_may_change():
    mask = methods.half(scene_of().x0.shape)
    scene = scene_of(mask=mask)
    known = np.broadcast_to(mask == 0, scene.x0.shape)
    for name in ("prompt-to-prompt:blend=0.3", "masactrl"):
        made = of(name).edit(scene_of(mask=mask)).numpy()
        assert np.allclose(made[known], scene.x0.numpy()[known], atol=1e-6)
    blended = of("prompt-to-prompt:blend=1").edit(scene_of())
    assert torch.allclose(blended, scene.x0, atol=1e-6)  # no word draws more than the most


def test_maps_are_watched_without_changing_the_run():
    scene = scene_of()
    both = invert_pair(scene, scene.times, 1.0, 1.0)
    x, maps = torch.cat([both.trajectory[-1]] * 2), Maps([(0, [0]), (1, [0, 1])])
    plain = both.denoise(x, 0.5).raw
    with controlled(scene, maps.watch):
        assert torch.equal(both.denoise(x, 0.5).raw, plain)
    assert torch.equal(both.denoise(x, 0.5).raw, plain)  # and the hooks are gone
    for i in (0, 1):
        found = maps.of(i)
        assert found is not None and found.shape == (token_count(scene),) and found.max() == 1
    assert Maps([(0, [])]).of(0) is None


def test_attention_that_is_not_known_is_refused():
    block = Block(0, "blocks.0", torch.nn.Linear(1, 1), BlockSpec())
    with pytest.raises(UnsupportedError, match="--x: the attention of Linear is not softmax"):
        with control_attention([block], lambda: 4, lambda call: call.run(), "--x"):
            pass


def test_image_tokens_behind_texts_of_different_lengths_are_refused():
    blocks = methods.scene_of("lumina2", "a", "b").session.model.network.blocks()
    with pytest.raises(UnsupportedError, match="--x: Lumina2.*different lengths.*flowedit"):
        with control_attention(blocks, lambda: 4, lambda call: call.run(), "--x", same_places=True):
            pass
