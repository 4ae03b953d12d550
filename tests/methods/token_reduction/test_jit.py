"""Anchors, their interpolation, and tokens that wake at the right noise level."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import VP, Flow
from dit_tools.core.prediction import KINDS, Prediction
from dit_tools.core.run import RunState
from dit_tools.core.steps import transfer
from dit_tools.methods.token_reduction.jit import data_of, raw_of
from dit_tools.nn.token_interpolation import Interpolation, add_tokens, first_anchors, importance
from tests.support import small

PATHS = [Flow(), VP(tuple(0.999**i * 0.998**i for i in range(1, 1001)))]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_constants_are_filled_in_exactly_and_anchors_keep_their_own():
    anchors = first_anchors((6, 5), 11, 2)
    fill = Interpolation(anchors, (6, 5))
    constant = torch.full((2, 3, 12, 10), 1.5)
    torch.testing.assert_close(fill(constant), constant)
    x = draw(2, 3, 12, 10)
    made, cells = fill(x), torch.nn.functional.pixel_unshuffle
    own = anchors[0]
    assert torch.equal(cells(made, 2).flatten(2)[:, :, own], cells(x, 2).flatten(2)[:, :, own])
    hidden = cells(x, 2).flatten(2).clone()
    hidden[:, :, [i for i in range(30) if i not in own.tolist()]] = 99.0
    again = fill(torch.nn.functional.pixel_shuffle(hidden.unflatten(2, (6, 5)), 2))
    torch.testing.assert_close(again, made)  # other tokens' own values are never read


def test_the_first_anchors_are_a_grid_and_the_border_and_always_the_same():
    assert first_anchors((8, 8), 64, 1)[0].tolist() == list(range(64))
    few = first_anchors((8, 8), 20, 3)
    assert few.shape == (3, 20) and torch.equal(few, first_anchors((8, 8), 20, 3))
    wanted = {
        r * 8 + c for r in range(8) for c in range(8) if (r % 2 == 0 and c % 2 == 0) or r in (0, 7) or c in (0, 7)
    }
    assert set(few[0].tolist()) < wanted < set(first_anchors((8, 8), 50, 1)[0].tolist())


def test_tokens_wake_where_the_velocity_varies():
    velocity = torch.zeros(1, 2, 8, 8)
    velocity[:, :, 4:, 4:] = draw(1, 2, 4, 4)
    weight = importance(velocity, (4, 4))
    assert weight[0, 0] == 0 and weight[0, 15] > 0
    woken = add_tokens(torch.tensor([[0, 1]]), weight, 5)[0].tolist()
    assert woken[:2] == [0, 1] and all(token // 4 >= 1 and token % 4 >= 1 for token in woken[2:])


@pytest.mark.parametrize("path", PATHS, ids=["flow", "vp"])
@pytest.mark.parametrize("kind", KINDS)
def test_readings_of_every_kind_come_back(path, kind):
    x, x0 = draw(1, 2, 4, 4), draw(1, 2, 4, 4, seed=1)
    p = Prediction(x, kind, x, 0.6, path)
    said = p.with_raw(raw_of(p, x0))
    torch.testing.assert_close(said.x0, x0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(data_of(p, said.velocity), x0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=["flow", "vp"])
@pytest.mark.parametrize("kind", ["flow", "eps", "v"])
def test_a_waking_token_is_put_exactly_at_its_target(path, kind):
    """The last step before waking ends at ``alpha Phi(x0) + sigma eps``; anchors do not notice."""
    jit = spec.parse("token_reduction", "jit:first=0.5,second=1,until=0.5..0.5")
    run = RunState((1.0, 0.8, 0.5, 0.0), 3, (4, 4))
    watch = _watch(jit, run)
    x, seen = draw(1, 2, 8, 8), []
    for call, (t, s) in enumerate(zip(run.times[:-1], run.times[1:], strict=True)):
        run.call, run.t = call, t
        watch.choose()
        raw = Prediction(draw(1, 2, 8, 8, seed=call + 5), kind, x, t, path)
        whole, old = watch.branch("cond", raw), watch._filling
        p = watch.guided(whole)
        if call == 0:
            target = path.alpha(s) * old(whole.x0) + path.sigma(s) * whole.eps
            landed = transfer(p, s)
            own = set(old.anchors[0].tolist())
            for token in range(16):
                r, c = 2 * (token // 4), 2 * (token % 4)
                expected = transfer(whole, s) if token in own else target
                torch.testing.assert_close(
                    landed[..., r : r + 2, c : c + 2], expected[..., r : r + 2, c : c + 2], atol=1e-4, rtol=1e-3
                )
        x = transfer(p, s)
        seen.append(watch._filling is None)
    assert seen == [True, True, True]


def _watch(jit, run):
    from dit_tools.methods.token_reduction.jit import _Watch

    return _Watch(jit, run)


def test_waking_tokens_have_the_noise_of_the_time():
    """Variance of what wakes, over many: alpha^2 Var(x0) + sigma^2, within 5 %."""
    jit, run = (
        spec.parse("token_reduction", "jit:first=0.3,second=1,until=0.5..0.5"),
        RunState((1.0, 0.6, 0.0), 2, (64, 64)),
    )
    run.call, x = 0, draw(1, 4, 64, 64)
    watch = _watch(jit, run)
    watch.choose()
    whole = watch.branch("cond", Prediction(x - 0.5, "flow", x, 1.0, Flow()))  # x0 = 0.5
    old = watch._filling.anchors[0]
    landed = transfer(watch.guided(whole), 0.6).flatten(2)
    others = [i for i in range(4096) if i not in set(old.tolist())]
    data = watch_data(whole, old)
    assert landed[..., others].var() == pytest.approx(0.16 * data + 0.36, rel=0.05)


def watch_data(whole, anchors):
    """Variance of Phi(x0) on all tokens."""
    return float(Interpolation(anchors[None], (64, 64))(whole.x0).var())


def test_stages_compute_their_share_of_tokens():
    plan = small.plan(tokens="jit:first=0.25,second=0.5,until=0.4..0.7", steps=10)
    generator, run = small.steps(small.pixart(), small.conditions(), plan)
    made = []
    for _ in generator:
        made.append(run.count["tokens computed"] - sum(made))
    assert made == [4] * 4 + [8] * 3 + [16] * 3


def test_solvers_of_other_orders_are_refused():
    for solver in ("heun", "unipc", "ddim:eta=1", "dpmpp-2m"):
        with pytest.raises(UsageError, match="--tokens jit and --solver .*first order.*euler"):
            small.plan(tokens="jit", solver=solver)
    assert small.plan(tokens="jit", solver="ddim").tokens.info.name == "jit"
    plan = replace(small.plan(tokens="jit:first=1"), solver=spec.parse("solvers", "heun"))
    plan.compose()


@pytest.mark.parametrize("other", [{"combine": "t-stitch"}, {"highres": "diffusehigh"}])
def test_several_models_and_several_runs_are_refused(other):
    with pytest.raises(UsageError, match="--tokens jit and --.*stages are over all steps"):
        small.plan(tokens="jit", **other)


def test_more_tokens_are_nearer_to_the_plain_picture():
    model, given = small.pixart(), small.conditions()
    plain, _ = small.final(model, given, small.plan(steps=12))
    errors = []
    for text in ("jit:first=0.25,second=0.5", "jit:first=0.6,second=0.8", "jit:first=0.9"):
        made, _ = small.final(model, given, small.plan(tokens=text, steps=12))
        errors.append(float((made - plain).norm()))
    assert errors[0] > errors[1] > errors[2] > 0
