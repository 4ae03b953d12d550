"""What every objective promises in a training step, and the formula of each."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Flow
from dit_tools.core.registry import get, names
from dit_tools.methods.objectives import NetworkInfo, TrainingStep
from dit_tools.methods.objectives._assign import assign_columns
from dit_tools.methods.objectives.interval_clustering import intervals
from dit_tools.tasks.train import dataset, losses, text_to_image, tokenizer
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.trainer import Trainer
from dit_tools.tasks.train.training_run import TrainingRun

BOLD = {
    "logit-normal": "logit-normal:mean=0.5",
    "uniform": "uniform",
    "immiscible": "immiscible",
    "sra": "sra",
    "repa": "repa",
    "haste": "haste:pairs=2",
    "masking": "masking:ratio=0.75",
    "curriculum": "curriculum:clusters=4,patience=2",
    "interval-clustering": "interval-clustering",
}
"""Parameters at which each objective of the transformer changes the training."""
SIDE = 8


def recipe(*objectives: str, **more: Any) -> recipes.Recipe:
    small = recipes.Transformer(
        width=24,
        heads=2,
        layers=3,
        patch_size=2,
        batch_size=8,
        samples=48,
        warmup_steps=2,
        learning_rate=3e-3,
        muon_learning_rate=1e-2,
        ema_decay=0.9,
        objectives=objectives,
    )
    return recipes.Recipe(
        "small",
        recipes.Data(folder="none", size=2 * SIDE),
        autoencoder=recipes.Autoencoder(channels=(8, 8), latent_channels=4),
        text_encoder=recipes.TextEncoder(16, 1, 2, 6),
        transformer=dataclasses.replace(small, **more),
    )


@pytest.fixture(scope="module")
def examples() -> text_to_image.Examples:
    captions = [dataset.Caption("", f"thing {i}", (), "") for i in range(8)]
    words = tokenizer.train([c.name for c in captions], 64, 6)
    latents = torch.randn(8, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return text_to_image.Examples(latents, captions, np.full(8, 1 / 8), words)


@pytest.fixture
def trainer(examples: text_to_image.Examples, tmp_path: Path):
    data = np.random.default_rng(0).integers(0, 255, (8, 4, 16, 16), dtype=np.uint8)

    def make(*objectives: str, folder: str = "run", **more: Any) -> Trainer:
        session, chosen = TrainingRun(tmp_path / folder, dtype="float32"), recipe(*objectives, **more)
        return Trainer(text_to_image.TextToImage(chosen, session, examples, data), chosen.seed, session)

    return make


def weights(made: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in made.subject.networks.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def identities() -> list[str]:
    chosen = [get("objectives", name) for name in BOLD]
    return [spec.format(cls(**cls.info.identity)) for cls in chosen if cls.info.identity]


def test_every_objective_is_tested_here() -> None:
    assert {*BOLD, "variance-expansion"} == set(names("objectives"))


@pytest.mark.parametrize("text", [*identities(), "logit-normal"])
def test_switched_off_it_is_plain_training_bit_for_bit(trainer, text: str) -> None:
    plain, same = trainer(), trainer(text)
    losses = [(plain.advance(), same.advance()) for _ in range(4)]
    assert all(a == b for a, b in losses)
    assert equal(weights(plain), weights(same))


def test_the_hooked_step_without_terms_equals_the_plain_step(trainer) -> None:
    """The two paths that a step can take give the same bits."""
    plain, through = trainer(), trainer()
    through.terms.all.append(type("Hooked", (losses.Term,), {"hooks": True})())
    through.terms.names.append("hooked")
    assert [plain.advance() for _ in range(3)] == [through.advance() for _ in range(3)]
    assert equal(weights(plain), weights(through))


@pytest.mark.parametrize("text", BOLD.values())
def test_switched_on_it_changes_training_and_leaves_nothing_behind(trainer, text: str) -> None:
    plain, ours = trainer(), trainer(text)
    for _ in range(3):
        plain.advance()
        assert math.isfinite(ours.advance())
    assert not equal(weights(plain), weights(ours))
    keys = set(ours.subject.networks.state_dict())
    assert keys == set(plain.subject.networks.state_dict()) == set(ours.subject.averaged.module.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in ours.subject.networks.modules())


@pytest.mark.parametrize("text", BOLD.values())
def test_it_resumes_to_the_bit(trainer, text: str) -> None:
    whole, first = trainer(text), trainer(text, folder="halves")
    for _ in range(6):
        whole.advance()
    for _ in range(3):
        first.advance()
    first.save()
    second = trainer(text, folder="halves")
    second.resume()
    for _ in range(3):
        second.advance()
    assert equal(weights(whole), weights(second))
    mine, theirs = second.terms.state_dict(), whole.terms.state_dict()
    assert mine["terms"] == theirs["terms"]
    assert equal([*mine["modules"].values()], [*theirs["modules"].values()])


def a_step(made: Trainer, seed: int = 1) -> TrainingStep:
    """The first step, for the first term, with a head that is not zero."""
    subject = made.subject
    batch = subject.batch(0, made.terms)
    torch.manual_seed(seed)
    with torch.no_grad():
        subject.networks.transformer.proj_out.weight.normal_(std=0.1)
    given = (batch.x0, batch.condition, batch.t, batch.noise, subject.path, batch.rows)
    return TrainingStep(subject.denoise, subject.teacher, *given, 0, 100, rng=made.terms.rng(0, 0))


def predict(step: TrainingStep) -> torch.Tensor:
    """What the forward pass gives, kept in the step as well."""
    step.prediction = step.denoise(step.x, step.t, step.condition)
    return step.prediction.raw


@pytest.mark.parametrize(
    ("text", "reached"),
    [("sra:student=0.3", 1), ("repa:block=0.6", 2), ("haste:block=0.6", 2)],
    ids=["sra", "repa", "haste"],
)
def test_an_alignment_reaches_its_block_and_nothing_behind_it(trainer, text, reached) -> None:
    made = trainer(text)
    step = a_step(made)
    term = made.terms.all[0]
    with term.attach(step):
        predict(step)
    term.loss(step)["alignment"].backward()
    blocks = made.subject.networks.transformer.transformer_blocks
    touched = [any(p.grad is not None and p.grad.any() for p in b.parameters()) for b in blocks]
    assert touched == [i < reached for i in range(3)]
    assert all(p.grad is not None and p.grad.any() for p in term.module.parameters())
    assert all(p.grad is None for p in made.subject.averaged.parameters())


def test_sra_is_zero_when_the_teacher_is_the_student(trainer) -> None:
    made = trainer("sra:student=0.6,teacher=0.6,gap=0")
    step = a_step(made)
    made.subject.averaged.module.load_state_dict(made.subject.networks.state_dict())
    term = made.terms.all[0]
    term.module = torch.nn.Identity()
    with term.attach(step):
        predict(step)
    assert term.loss(step)["alignment"].item() == pytest.approx(0, abs=1e-6)


def test_repa_is_switched_off_to_the_bit(trainer) -> None:
    """After ``until`` a step is the plain step: no forward hook, no loss, no gradient."""
    made = trainer("repa:until=0.5")
    for _ in range(3):
        made.advance()
    rest = trainer()
    rest.subject.networks.load_state_dict(made.subject.networks.state_dict())
    rest.subject.averaged.load_state_dict(made.subject.averaged.state_dict())
    rest.subject.optimizers.load_state_dict(copy.deepcopy(made.subject.optimizers.state_dict()))
    rest.step = made.step
    assert [made.advance() for _ in range(3)] == [rest.advance() for _ in range(3)]
    assert equal(weights(made), weights(rest))


def test_repa_aligns(trainer) -> None:
    made = trainer("repa:weight=5,until=1", samples=8 * 60)
    seen = []
    for _ in range(60):
        made.advance()
        seen.append(made.losses["repa alignment"].item())
    assert seen[-1] < 0.8 * seen[0]


def test_masking_trains_on_kept_tokens_alone(trainer) -> None:
    made = trainer("masking:ratio=0.75")
    step = a_step(made)
    term, seen = made.terms.all[0], []
    last = made.subject.networks.transformer.transformer_blocks[-1]
    handle = last.register_forward_hook(lambda m, a, out: seen.append(out.shape[1]))
    with term.attach(step):
        velocity = predict(step)
    handle.remove()
    velocity.retain_grad()
    term.reduce((velocity - (step.noise - step.x0)).square(), step).backward()
    patches = velocity.grad.unfold(2, 2, 2).unfold(3, 2, 2).abs().sum((1, 4, 5)).flatten(1)
    for row, kept in zip(patches, step.store["kept"], strict=True):
        assert set(row.nonzero().flatten().tolist()) == set(kept.tolist()) and len(kept) == 4
    ones = torch.full_like(velocity, 3.0)
    assert term.reduce(ones, step).item() == pytest.approx(3)


def test_the_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        cost = rng.standard_normal((6, 6))
        best = min(sum(cost[i, p[i]] for i in range(6)) for p in itertools.permutations(range(6)))
        found = assign_columns(cost)
        assert sorted(found) == list(range(6))
        assert cost[range(6), found].sum() == pytest.approx(best)


def test_immiscible_shortens_paths_as_published() -> None:
    """128 dimensions, data of deviation 0.8, batch 64: some 10 % for a permutation."""
    rng = np.random.default_rng(0)
    ratios, chosen = {"batch": [], "nearest": []}, []
    for i in range(30):
        x0 = torch.from_numpy(0.8 * rng.standard_normal((64, 128), dtype=np.float32))
        noise = torch.from_numpy(rng.standard_normal((64, 128), dtype=np.float32))
        x0, noise = x0.reshape(64, 2, 8, 8), noise.reshape(64, 2, 8, 8)
        plain = (x0 - noise).flatten(1).norm(dim=1).mean()
        for how, found in ratios.items():
            term = spec.parse("objectives", f"immiscible:assign={how}").begin(None)
            made = term.couple(x0, noise, np.random.default_rng(i))
            found.append(((x0 - made).flatten(1).norm(dim=1).mean() / plain).item())
            if how == "batch":
                assert torch.equal(made.flatten().sort().values, noise.flatten().sort().values)
            else:
                chosen.append(made.std().item())
    assert np.mean(ratios["batch"]) == pytest.approx(1 - 0.103, abs=0.01)
    assert 0.85 < np.mean(ratios["nearest"]) < 0.95
    assert np.mean(chosen) == pytest.approx(0.943, abs=0.02)


def test_logit_normal_has_its_mean_and_spread() -> None:
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    logits = torch.logit(spec.parse("objectives", "logit-normal:mean=0.4,std=2").begin(None).times(uniform).double())
    assert logits.mean().item() == pytest.approx(0.4, abs=0.02)
    assert logits.std().item() == pytest.approx(2, abs=0.02)


def test_the_curriculum_opens_from_high_noise_to_all_times() -> None:
    term = spec.parse("objectives", "curriculum:clusters=4,patience=5,until=1").begin(None)
    uniform = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    none: Any = None
    step = TrainingStep(none, None, none, None, none, none, Flow(), none, 0, 10**6)
    lows = []
    for _ in range(30):
        lows.append(term.quantiles(uniform).min().item())
        assert lows[-1] >= 1 - term.open / 4 and term.quantiles(uniform).max().item() <= 1
        term.observe(1.0, step)
    assert sorted(lows, reverse=True) == lows and term.open == 4
    assert torch.equal(term.quantiles(uniform), uniform)
    late = spec.parse("objectives", "curriculum:clusters=4,patience=999,until=0.5").begin(None)
    for i in range(50):
        late.observe(1 / (i + 1), dataclasses.replace(step, step=i, steps=100))
    assert late.open == 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_intervals_are_the_best_of_all(count: int) -> None:
    values = [2 * math.log((1 - t) / t) for t in np.linspace(0.02, 0.97, 12)]

    def total(starts: tuple[int, ...]) -> float:
        ends = [*starts[1:], len(values)]
        return sum(
            min(sum(abs(v - c) for v in values[a:b]) for c in values[a:b]) for a, b in zip(starts, ends, strict=True)
        )

    options = [(0, *c) for c in itertools.combinations(range(1, 12), count - 1)]
    assert total(tuple(intervals(values, count))) == pytest.approx(min(map(total, options)))


def test_intervals_of_time_are_equal_thirds() -> None:
    assert intervals([i / 200 for i in range(200)], 3) == pytest.approx([0, 67, 133], abs=1)


def test_uncertainty_weights_settle_at_the_losses() -> None:
    """The best deviation of a task is the root of its loss; at the start the loss is the mean."""
    from dit_tools.nn.uncertainty import Uncertainty

    module, losses = Uncertainty(3), torch.tensor([0.1, 0.5, 2.0])
    share = torch.full((3,), 1 / 3)
    assert module(losses, share).item() == pytest.approx(losses.mean().item())
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        module(losses, share).backward()
        optimizer.step()
    assert torch.allclose((2 * module.log_sigma).exp(), losses, rtol=1e-2)


def test_variance_expansion_settles_where_theory_says() -> None:
    """A linear decoder J: sigma = (weight / Tr J J^T)^(1/4) for a summed squared error."""
    torch.manual_seed(0)
    term = spec.parse("objectives", "variance-expansion:weight=0.1,floor=1e-8,size=0").begin(None)
    decoder, channels = torch.randn(6, 4) * 0.7, 4
    mean, logvar = torch.zeros(1, channels, 1, 1), torch.zeros(1, 1, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logvar], 0.03)
    for _ in range(600):
        noise = torch.randn(512, channels, 1, 1)
        drawn, loss = term.latents(mean.expand(512, -1, -1, -1), logvar, noise)
        error = (drawn.flatten(1) @ decoder.T).square().sum(1).mean()
        optimizer.zero_grad()
        (error + loss).backward()
        optimizer.step()
    sigma = (logvar / 2).exp().item()
    assert sigma == pytest.approx((0.1 / decoder.square().sum().item()) ** 0.25, rel=0.1)


def test_an_objective_of_the_other_stage_or_given_twice_is_refused() -> None:
    from dit_tools.core.errors import UsageError

    with pytest.raises(UsageError, match=r"put it in \[autoencoder\]"):
        losses.parse_objectives(["variance-expansion"], "transformer")
    with pytest.raises(UsageError, match="given twice"):
        losses.parse_objectives(["sra", "sra:weight=1"], "transformer")


@pytest.mark.parametrize(
    ("text", "change", "says"),
    [
        ("haste", {"block": "FluxTransformerBlock"}, "haste: it compares maps .* this network's blocks are Flux"),
        ("masking", {"block": "JointTransformerBlock"}, "masking: tokens can leave only .* blocks are Joint"),
        ("sra", {"teacher": False}, "sra: it learns from a moving average.*set ema_decay"),
    ],
)
def test_what_cannot_be_applied_to_a_network_is_refused_with_the_reason(text: str, change: Any, says: str) -> None:
    images = np.zeros((1, 4, 8, 8), np.uint8)
    network = dataclasses.replace(NetworkInfo(8, 4, 4, 2, lambda: images), **change)
    with pytest.raises(UnsupportedError, match=says):
        spec.parse("objectives", text).begin(network)
    cls = get("objectives", text)
    cls(**cls.info.identity).begin(network)  # switched off it needs nothing


def test_a_term_may_replace_the_loss_of_the_prediction(trainer) -> None:
    """Reflow and consistency losses do: the network is called by the term alone."""
    made, calls = trainer(), []

    class Own(losses.Term):
        hooks = replaces = True

        def loss(self, step: TrainingStep) -> dict[str, torch.Tensor]:
            assert step.prediction is None and step.teacher is not None
            calls.append(step.step)
            wanted = step.teacher(step.x, step.t, step.condition)
            return {"own": (step.denoise(step.x, step.t, step.condition).x0 - wanted.x0.detach()).square().mean()}

    made.terms.all.append(Own())
    made.terms.names.append("own")
    assert made.advance() == 0.0 and calls == [0]  # the average is the network at first
    assert list(made.losses) == ["own own"]
