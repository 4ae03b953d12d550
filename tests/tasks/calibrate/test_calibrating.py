"""What dit calibrate finds: against formulas, against use, and through the whole of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UnsupportedError, UsageError
from dit_tools.models.calibration import Calibration
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.tasks.calibrate import ertacache, harmonica, ilf, magcache
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun
from dit_tools.tasks.calibrate.run import (
    calibrate,
    check_cache,
    check_output,
    computed,
    evaluate_calibration,
    write_calibration,
)
from tests.support import numpy_model, pixart, small

STEPS = 8


def of(model, cache: str, size: int, prompts=("red",), rounds=2, guidance="cfg:scale=2") -> CalibrationRun:
    chosen = small.plan(cache, STEPS, guidance)
    return CalibrationRun(model, chosen, prompts, (size, size), rounds)


@pytest.fixture(scope="module")
def torch_model():
    """A tiny PixArt whose every output depends on the time."""
    model = model_from_pipeline(pixart.pipeline(), name="p", revision="0", device="cpu", dtype="float32")
    with torch.no_grad():
        for parameter in model.network.module.parameters():
            parameter.mul_(2.0)
    return model


@pytest.fixture(scope="module")
def numbers():
    return numpy_model.model()


def test_corrected_times_keep_their_ends_and_shorten_the_steps_that_are_named():
    times = (1.0, 0.75, 0.5, 0.25, 0.0)
    assert ertacache.correct_call(times, {}) == pytest.approx(times)
    made = ertacache.correct_call(times, {1: 0.5})
    # 0.75 - 0.125, and the rest of 0.625 in two equal steps
    assert made == pytest.approx((1.0, 0.75, 0.625, 0.3125, 0.0))
    assert ertacache.correct_call(times, {1: 0.0, 2: 1.0})[2] == pytest.approx(0.725)


def test_ertacache_finds_lists_that_grow_and_lines_that_help(numbers):
    session = of(numbers, "ertacache:order=0", 16, ("red", "green", "blue"))
    found = ertacache.calibrate(session)
    counts = found["skipped"].sum(axis=1)
    assert counts[0] <= counts[-1] and counts[-1] > 2
    assert not found["skipped"][:, 0].any() and not found["skipped"][:, -1].any()
    plain, _ = session.plain()
    made = {k: np.asarray(v, np.float32) for k, v in found.items()}

    def error(**changes):
        x, run = session.cached(Calibration({}, made), threshold=1.0, **changes)
        assert run.count["blocks skipped"] == counts[-1]
        return float(((x - plain) ** 2).mean())

    mended = error(retime=False)
    assert mended <= error(retime=False, rectify=False)
    assert error() <= mended


def test_the_line_is_least_squares(numbers):
    session = of(numbers, "ertacache:order=0", 16)
    rng = np.random.default_rng(0)
    guess, output = rng.standard_normal((2, 1, 3, 4, 4))
    run = session.plain()[1]
    network = ertacache._Simulated(None, run, 0, 1.0, {})
    run.call, run.branches = 3, ("cond",)
    mended = network._rectified(guess, output, output * 0)
    slope, offset = np.polyfit(guess.ravel(), (guess - output).ravel(), 1)
    np.testing.assert_allclose(network.found.lines[3, "cond"], (slope, offset), rtol=1e-6)
    np.testing.assert_allclose(mended, guess - slope * guess - offset, rtol=1e-6)


def test_magcache_measures_growth(torch_model):
    """By hand for one call: norms of what the blocks add, per token, from hooks of its own."""
    session = of(torch_model, "magcache", 64)
    found = magcache.calibrate(session)
    (name,) = found
    assert name in ("ratio.cond+uncond", "ratio.uncond+cond")
    assert found[name].shape == (STEPS,) and found[name][0] == 1.0
    blocks, seen = torch_model.network.blocks(), []
    handles = [
        blocks[0].module.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        blocks[-1].module.register_forward_hook(lambda m, a, output: seen.append(output)),
    ]
    session.plain()
    for handle in handles:
        handle.remove()
    norms = [(end - start).norm(dim=-1) for start, end in zip(seen[::2], seen[1::2], strict=True)]
    assert found[name][4] == pytest.approx(float((norms[4] / norms[3]).mean()), rel=1e-4)


def test_harmonica_learns_and_a_higher_price_computes_less(torch_model):
    shares = []
    for beta in (0.0, 5.0):
        session = of(torch_model, f"harmonica:beta={beta}", 64, rounds=3)
        rho = harmonica.calibrate(session)["rho"]
        assert rho.shape == (STEPS, 3 * 3) and np.abs(rho).max() <= harmonica.CLAMP
        assert (rho[0] == harmonica.START).all()  # always computed, so never trained
        shares.append(float(rho[1:-1].mean()))
    assert shares[1] < shares[0]
    wanted = [p for p in torch_model.network.module.parameters() if p.requires_grad]
    assert wanted and all(p.grad is None for p in wanted)


def test_harmonica_beats_random_tables_that_compute_as_much(torch_model):
    session = of(torch_model, "harmonica", 64, rounds=10)
    rho = harmonica.calibrate(session)["rho"]
    fresh = session.with_prompts(("blue",), 77)
    plain, _ = fresh.plain()

    def error(inner):
        """Of the final latents, when the upper half of these numbers is computed."""
        table = np.full_like(rho, harmonica.CLAMP)
        table[1:-1] = np.where(inner > np.median(inner), harmonica.CLAMP, -harmonica.CLAMP)
        x, run = fresh.cached(Calibration({}, {"rho": table}), threshold=0.5)
        assert run.count["modules computed"] == (STEPS - 2) // 2 * 9 + 2 * 9
        return float(((x - plain) ** 2).mean())

    ranks = np.argsort(np.argsort(rho[1:-1], axis=None)).reshape(rho[1:-1].shape)  # no ties
    rng = np.random.default_rng(0)
    chance = [error(rng.permutation(ranks.ravel()).reshape(ranks.shape)) for _ in range(6)]
    assert error(ranks) < 0.7 * np.mean(chance)


def test_ilf_starts_from_reuse_and_gets_nearer_to_the_full_network(torch_model):
    session = of(torch_model, "ilf:share=0.67", 64, rounds=12)
    before = {n: p.clone() for n, p in torch_model.network.module.named_parameters()}
    found = ilf.calibrate(session)
    assert np.abs(found["gamma"]).max() > 0
    after = dict(torch_model.network.module.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)

    fresh = session.with_prompts(("blue",), 77)
    calls, run = ilf.record(fresh)
    losses = []
    for arrays in (found, {**found, "gamma": found["gamma"] * 0}):
        from dit_tools.nn.feedback import Feedback

        module = Feedback.of(torch_model.network.blocks()[1], len(arrays["gamma"]))
        module.load(arrays)
        losses.append(np.mean(ilf.teach(fresh, module, None, calls, run)))
    assert losses[0] < losses[1]


def test_a_calibration_is_written_judged_and_used(torch_model, tmp_path, monkeypatch):
    from dit_tools.models import calibration

    monkeypatch.setattr(calibration, "calibration_folder", lambda: tmp_path)
    monkeypatch.setattr("dit_tools.tasks.calibrate.run.calibration_folder", lambda: tmp_path)
    session = of(torch_model, "magcache:threshold=2,retention=0.1", 64)
    made = calibrate(session)
    verdict = evaluate_calibration(session, made, ("blue",))
    assert 0 < verdict.computed < 1 and verdict.psnr > 5
    path = write_calibration(made, None)
    assert path.parent == tmp_path and path.name.startswith("magcache-p-8-")
    _, run = session.run(session.plan.cache)  # finds it by itself
    assert computed(run) == pytest.approx(verdict.computed, abs=0.3)
    other = replace(session, plan=replace(session.plan, steps=STEPS + 1))
    with pytest.raises(InputError, match="not calibrated for p, 9 steps"):
        other.run(other.plan.cache)


def test_what_cannot_be_calibrated_is_refused(numbers, tmp_path):
    with pytest.raises(UsageError, match="nothing to calibrate; choose from ertacache, harmonica"):
        check_cache(spec.parse("caching", "taylorseer"))
    with pytest.raises(UnsupportedError, match="numpy offers no blocks.*--backend torch"):
        calibrate(of(numbers, "harmonica", 16))
    with pytest.raises(UsageError, match="not a .safetensors file"):
        check_output("a.json", False)
    with pytest.raises(UsageError, match="comma"):
        check_output("a,b.safetensors", False)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(InputError, match="exists; add --overwrite"):
        check_output(str(tmp_path / "a.safetensors"), False)
