"""HeadHunter: it finds a head that was hidden, and says it as --guidance takes it."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.methods.guidance import soft_pag
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.tasks.calibrate.heads import Draws, Round, best_round, heads_of, search_heads
from tests.support import pixart, small

GUIDANCE = "soft-pag:scale=2,weight=3,share=1"
PROMPTS = ("a", "b")


@pytest.fixture(scope="module")
def model():
    """Three blocks of two heads."""
    return model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")


def plan(guidance=GUIDANCE):
    return small.plan(steps=2, guidance=guidance)


def near(model, *hidden):
    """A score that is 0 for images made with these heads perturbed, and else below."""
    seen = []
    Draws(model, plan(), PROMPTS, lambda x, _: seen.append(x) or [0.0, 0.0], 0).mean(hidden)

    def score(x, prompts):
        assert prompts == PROMPTS
        return (-(x - seen[0]).flatten(1).norm(dim=1)).tolist()

    return score


def test_every_head_is_in_the_pool(model):
    assert heads_of(model) == [(block, head) for block in range(3) for head in range(2)]


@pytest.mark.parametrize("hidden", [(0, 1), (2, 0)])
def test_a_hidden_head_is_found(model, hidden):
    told = []
    start, found = search_heads(model, plan(), PROMPTS, near(model, hidden), keep=1, tell=lambda *at: told.append(at))
    assert (start.heads, found.heads) == ((), (hidden,))
    assert start.score < -0.01 and found.score == pytest.approx(0, abs=1e-6)
    assert best_round([start, found]) is found
    assert told[0][0] == 1 and told[-1] == (7, 7)  # six heads, and the chosen ones together


def test_rounds_add_to_what_was_chosen(model):
    rounds = search_heads(model, plan(), PROMPTS, near(model, (1, 0), (1, 1)), rounds=2, keep=1)
    assert [len(one.heads) for one in rounds] == [0, 1, 2]
    assert rounds[2].heads[:1] == rounds[1].heads
    assert best_round(rounds).score == max(one.score for one in rounds)


def test_the_search_ends_when_no_head_is_left(model):
    rounds = search_heads(model, plan(), PROMPTS, lambda x, p: [0.0, 0.0], rounds=9, keep=4)
    assert [len(one.heads) for one in rounds] == [0, 4, 6]


def test_the_text_is_read_back_by_the_guidance():
    text = Round(((3, 1), (3, 4), (5, 0)), 0.0).text
    assert soft_pag.heads_of(text) == {3: [1, 4], 5: [0]}


def test_without_heads_it_is_the_plain_run(model):
    seen = []
    runs = Draws(model, plan(), PROMPTS, lambda x, _: seen.append(x) or [0.0, 0.0], 0)
    runs.mean(())
    other = Draws(model, plan("cfg:scale=2"), PROMPTS, runs._score, 0)
    other._plan = small.plan(steps=2, guidance="soft-pag:scale=2,weight=0")
    other.mean(())
    assert torch.equal(seen[0], seen[1])


def test_what_has_no_heads_is_refused(model):
    with pytest.raises(UsageError, match="needs --guidance soft-pag"):
        search_heads(model, plan("cfg"), PROMPTS, near)
    bare = small.pixart()
    bare.network.offers = frozenset()
    with pytest.raises(UnsupportedError, match="use --backend torch"):
        heads_of(bare)
