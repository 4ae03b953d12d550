"""Training adapters: of every family, resumable to the bit, with an effect, and back by --lora."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.core.size import Size
from dit_tools.models.loading import lora
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.models.loading.load import load
from dit_tools.tasks.train import checkpoint, collate, dataset, losses, plot, train_adapter
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.run import run
from dit_tools.tasks.train.trainer import Batch, Trainer
from dit_tools.tasks.train.training_run import TrainingRun
from tests.support import pixart
from tests.tasks.train.conftest import draw_pictures

FAMILIES = ("pixart", "flux", "sd3", "sana", "lumina2", "qwenimage", "zimage", "dit")
METHODS = ("lora:rank=2", "difffit", "diffscaler")


def recipe(model: str | Path, folder: Path, method: str = "lora", **more: Any) -> recipes.Recipe:
    size = more.pop("size", 32)
    return recipes.Recipe(
        "ink",
        recipes.Data(folder=str(folder), size=size),
        adapter=recipes.Adapter(str(model), method, **{"samples": 24, **more}),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and captioned images."""
    folder = tmp_path_factory.mktemp("adapters")
    draw_pictures(folder / "pictures", 8)
    pixart.pipeline().save_pretrained(folder / "model")
    return folder


def trainer(family: str, method: str, run: Path = Path("unused"), **more: Any) -> Any:
    """A trainer of an adapter of a tiny model; its subject is an ``AdapterSubject``."""
    support = importlib.import_module(f"tests.support.{family}")
    pipe = support.pipeline()
    model = model_from_pipeline(pipe, name=family, revision="0", device="cpu", dtype="float32")
    name = "1" if family == "dit" else "a red apple"
    captions = [dataset.Caption("", name, (), "")] * 2
    side = model.family.default_size if family == "dit" else 32
    shape = model.family.latent_shape(Size.square(side))
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    images = np.random.default_rng(0).integers(0, 255, (2, 4, side, side), dtype=np.uint8)
    examples = train_adapter.Examples(latents, captions, np.full(2, 0.5), images)
    made = recipe(family, Path("x"), method, batch_size=2, size=side, **more)
    session = TrainingRun(run, dtype="float32")
    return Trainer(train_adapter.AdapterSubject(made, session, model, examples), made.seed, session)


def batch(subject: train_adapter.AdapterSubject, noise: Any, t: list[float], text: str) -> Batch:
    """The first images with noise (B, C, h, w) at times ``t``."""
    x0 = subject.examples.latents[: len(t)]
    condition = [subject.condition(text)] * len(t)
    return Batch(np.arange(len(t)), x0, condition, torch.tensor(t, dtype=torch.float64), noise)


def loss(made: Trainer, text: str, noise: Any = None, t: float = 0.4) -> float:
    """The loss of the first image."""
    subject: Any = made.subject
    noise = torch.ones_like(subject.examples.latents[:1]) if noise is None else noise
    b = batch(subject, noise, [t], text)
    return losses.plain(subject.denoise, b.x0, b.condition, b.t, b.noise, subject.path).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_that_go_together_give_what_each_gives_alone(family: str) -> None:
    subject = trainer(family, "lora:rank=2").subject
    noise = torch.stack([torch.full_like(subject.examples.latents[0], 0.5 - i) for i in range(2)])
    made = batch(subject, noise, [0.3, 0.7], subject.examples.captions[0].name)
    assert subject.parts(made) == [slice(None)]
    both = subject.denoise(made.x0, made.t, made.condition).raw
    each = [made.part(slice(i, i + 1)) for i in range(2)]
    alone = torch.cat([subject.denoise(one.x0, one.t, one.condition).raw for one in each])
    assert torch.allclose(both, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])


def test_where_nothing_is_said_every_image_is_seen_two_hundred_times() -> None:
    made = trainer("pixart", "lora", samples=0)
    assert (made.subject.settings.batch_size, len(made.subject.examples.captions)) == (2, 2)
    assert made.steps == 200


def test_what_cannot_go_together_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trainer("pixart", "lora").subject
    noise = torch.ones_like(subject.examples.latents)
    made = batch(subject, noise, [0.2, 0.7], "a red apple")
    given = subject.denoise.inputs(made.x0, made.t, made.condition)
    assert collate.joins(given)
    longer = torch.cat([given[1]["encoder_hidden_states"]] * 2, 1)
    assert not collate.joins([given[0], {**given[1], "encoder_hidden_states": longer}])
    straight = subject.module.forward

    def mixing(x: torch.Tensor, *rest: Any, **more: Any) -> Any:  # images see each other
        return straight(x.mean(0, keepdim=True).expand_as(x), *rest, **more)

    subject.module.forward = lambda hidden_states, **more: mixing(hidden_states, **more)
    assert subject.parts(made) == [slice(0, 1), slice(1, 2)]
    monkeypatch.setattr(collate, "MAX_PARAMETERS", 1)
    assert not collate.fits(subject.module)


def test_a_batch_in_parts_has_the_gradients_of_the_whole() -> None:
    """Losses and gradients of images that go one by one, with objectives, are those of one call."""
    found = []
    for together in (True, False):
        made = trainer("sd3", "lora:rank=2", objectives=("interval-clustering", "repa"))
        made.subject.together = together
        made.subject.optimizers.step = lambda factor: None
        made.terms.step = lambda factor: None
        value = made.advance()
        found.append((value, [p.grad.clone() for p in (*made.subject.trained, *made.terms.modules.parameters())]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert any(g.any() for g in found[0][1])
    # Gradients were clipped to norm 1 and then kept; those of the terms are as they came.
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_an_adapter_and_nothing_else(family: str) -> None:
    made = trainer(family, "lora:rank=2", learning_rate=1e-2)
    before = {n: p.detach().clone() for n, p in made.subject.module.named_parameters() if not p.requires_grad}
    fixed = [loss(made, made.subject.examples.captions[0].name)]
    for _ in range(6):
        made.advance()
    fixed.append(loss(made, made.subject.examples.captions[0].name))
    assert fixed[0] != fixed[1] and np.isfinite(fixed[1])
    after = dict(made.subject.module.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items())
    assert any(p.any() for n, p in after.items() if "lora_B" in n)


def test_the_loss_of_an_untrained_adapter_is_that_of_the_base() -> None:
    plain = None
    for method in METHODS:
        made = trainer("pixart", method)
        value = loss(made, "a red apple")
        plain = value if plain is None else plain
        assert value == plain


def test_targets_are_what_the_network_predicts() -> None:
    """A network that says exactly the truth has no loss, on the path of noise and of velocity."""
    for family in ("pixart", "sd3"):
        made = trainer(family, "lora")
        x0 = made.subject.examples.latents[:1]
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        truth = noise if family == "pixart" else noise - x0
        made.subject.module.forward = lambda *a, truth=truth, **k: (truth,)
        assert loss(made, "a red apple", noise, 0.3) == pytest.approx(0, abs=1e-12)
        times = made.terms.times(torch.tensor([0.001, 0.3, 0.999], dtype=torch.float64)).tolist()
        assert times == sorted(times) and 0 < times[0] and times[-1] <= 1


@pytest.mark.parametrize("family", ["flux", "sd3", "lumina2", "zimage"])
@pytest.mark.parametrize(
    "text", ["immiscible:assign=nearest", "repa:until=1", "sra:until=1", "curriculum", "interval-clustering"]
)
def test_objectives_train_adapters_of_other_families(family: str, text: str) -> None:
    """They change what is learned, train the adapter alone, and leave no hook behind."""
    more: dict[str, Any] = {"learning_rate": 1e-2, "ema_decay": 0.9}
    plain, ours = (trainer(family, "lora:rank=2", objectives=o, **more) for o in ((), (text,)))
    before = {n: p.detach().clone() for n, p in ours.subject.module.named_parameters() if not p.requires_grad}
    for _ in range(4):
        plain.advance()
        assert np.isfinite(ours.advance())
    after = dict(ours.subject.module.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items())
    pairs = zip(plain.subject.trained, ours.subject.trained, strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in ours.subject.module.modules())


@pytest.mark.parametrize("text", ["repa:weight=0", "immiscible:assign=nearest,draws=1", "curriculum:clusters=1"])
def test_an_objective_that_is_off_is_plain_training_of_an_adapter_bit_for_bit(text: str) -> None:
    plain, ours = (trainer("flux", "lora:rank=2", objectives=o) for o in ((), (text,)))
    assert [plain.advance() for _ in range(3)] == [ours.advance() for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(plain.subject.trained, ours.subject.trained, strict=True))


def test_repa_aligns_the_adapted_block_of_another_family() -> None:
    made = trainer("flux", "lora:rank=2", objectives=("repa:weight=5,until=1",), samples=80, learning_rate=1e-2)
    seen = []
    for _ in range(40):
        made.advance()
        seen.append(made.losses["repa alignment"].item())
    assert seen[-1] < 0.8 * seen[0]
    assert any(p.any() for n, p in made.subject.module.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize(
    ("family", "text", "says"),
    [
        ("flux", "masking", "masking: tokens can leave only .* blocks are FluxTransformerBlock"),
        ("sd3", "haste", "haste: it compares maps .* blocks are JointTransformerBlock"),
        ("sd3", "sra", "sra: it learns from a moving average"),
    ],
)
def test_objectives_that_cannot_apply_are_refused_with_the_reason(family: str, text: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        trainer(family, "lora:rank=2", objectives=(text,))


def test_the_moving_average_follows_and_is_what_is_saved(tmp_path: Path) -> None:
    made = trainer("pixart", "lora:rank=2", tmp_path, ema_decay=0.5, learning_rate=1e-2)
    own = [p.detach().clone() for p in made.subject.trained]
    for i in range(3):
        made.advance()
        now = [p.detach().clone() for p in made.subject.trained]
        own = now if i == 0 else [torch.lerp(a, b, 0.5) for a, b in zip(own, now, strict=True)]
    subject = made.subject
    assert all(torch.equal(a, b) for a, b in zip(own, subject.averaged.values, strict=True))
    with subject.averaged.in_place():
        wanted = subject.attached.tensors()
    assert all(torch.equal(p, b) for p, b in zip(subject.trained, now, strict=True))
    saved = load_file(subject.write(3))
    assert saved.keys() == wanted.keys() and all(torch.equal(saved[k], wanted[k]) for k in saved)
    assert any(not torch.equal(saved[k], v) for k, v in subject.attached.tensors().items())


@pytest.mark.parametrize("text", ["repa", "sra"])
def test_an_adapter_with_objectives_and_average_resumes_to_the_bit(tmp_path: Path, text: str) -> None:
    more: dict[str, Any] = {"objectives": (text,), "ema_decay": 0.9, "learning_rate": 1e-2}
    whole, first = (trainer("sd3", "lora:rank=2", tmp_path / name, **more) for name in ("whole", "halves"))
    for _ in range(6):
        whole.advance()
    for _ in range(3):
        first.advance()
    first.save()
    second = trainer("sd3", "lora:rank=2", tmp_path / "halves", **more)
    second.resume()
    for _ in range(3):
        second.advance()
    for part in ("trained", "averaged"):
        a, b = (getattr(t.subject, part) for t in (whole, second))
        a, b = (x.values if part == "averaged" else x for x in (a, b))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), part


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_resumes_to_the_bit_and_is_taken_by_lora(place: Path, tmp_path: Path, method: str) -> None:
    before = digest(place / "model")
    made = recipe(place / "model", place / "pictures", method, learning_rate=1e-2)
    whole = run(made, TrainingRun(tmp_path / "whole", sample_every=99), None)
    assert run(made, TrainingRun(tmp_path / "halves", stop=2), None) is None
    halves = run(made, TrainingRun(tmp_path / "halves", sample_every=99), None)
    assert whole and halves and whole.read_bytes() == halves.read_bytes()
    assert digest(place / "model") == before
    assert (tmp_path / "whole/sheet-000006.png").is_file()
    assert plot.read_rows(tmp_path / "whole")["adapter"][-1]["step"] == 6

    plain, adapted = (load(str(place / "model"), loras=loras, backend="torch") for loras in ((), (str(whole),)))
    assert adapted.notes["loras"][0]["name"] == "ink.safetensors"
    assert adapted.notes["loras"][0]["layers"] > 0
    silent = load(str(place / "model"), loras=(f"{whole}:0",), backend="torch")
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = []
    for model in (plain, adapted, silent):
        asked = train_adapter.ConditionRequest(("a red circle",), ("",), Size.square(32), ("cond",))
        given = model.family.inputs(x, 0.5, model.encode(asked)["cond"])
        outputs.append(model.network(**given))
    assert torch.equal(outputs[0], outputs[2]) and not torch.equal(outputs[0], outputs[1])


def test_another_method_or_model_is_refused(place: Path, tmp_path: Path) -> None:
    made = recipe(place / "model", place / "pictures")
    run(made, TrainingRun(tmp_path, stop=1), None)
    other = dataclasses.replace(made.adapter, method="difffit")
    with pytest.raises(ModelError, match="made by another recipe or model"):
        run(dataclasses.replace(made, adapter=other), TrainingRun(tmp_path), None)
    state = checkpoint.load_checkpoint(tmp_path / "adapter.pt")
    assert state and state["step"] == 1
    with pytest.raises(UsageError, match="an adapter trains no autoencoder"):
        run(made, TrainingRun(tmp_path), None, "autoencoder")


def test_an_adapter_for_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    from tests.support import sd3

    for method in ("difffit", "diffscaler"):
        made = recipe(place / "model", place / "pictures", method, learning_rate=1e-2)
        path = run(made, TrainingRun(tmp_path / method, sample_every=99), None)
        assert path
        with pytest.raises(ModelError, match="ink.safetensors: does not fit this model"):
            lora.apply(sd3.pipeline(), [lora.Lora(path, 1.0)])


def test_twenty_pictures_teach_the_built_in_model_a_style(tmp_path: Path) -> None:
    """Night: everything on dark blue. The loss falls, and new prompts become dark as well."""
    folder = tmp_path / "night"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        image = np.full((64, 64, 3), (10, 10, 90), np.uint8)
        top, left = rng.integers(8, 24, 2)
        image[top : top + 30, left : left + 30] = rng.integers(120, 255, 3)
        Image.fromarray(image).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("night square", encoding="utf-8")
    made = recipe(
        "emoji", folder, "lora:rank=4", samples=128, batch_size=4, size=64, learning_rate=1e-2, prompt_dropout=0.0
    )
    path = run(made, TrainingRun(tmp_path / "run", save_every=3, sample_every=10**6), None)
    rows = plot.read_rows(tmp_path / "run")["adapter"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    for text, ratio in (("night square", 0.8), ("night heart", 0.97)):  # seen, and never seen
        plain, styled = (brightness(text, loras) for loras in ((), (str(path),)))
        assert styled < ratio * plain, text


def brightness(text: str, loras: tuple[str, ...]) -> float:
    """Mean of a drawn image in [0, 1]."""
    from tests.support import loop
    from tests.support.small import plan

    model = load("emoji", loras=loras, backend="torch")
    asked = train_adapter.ConditionRequest((text,), ("",), Size.square(64), ("cond",))
    chosen = plan(steps=6)
    x, noise = loop.start(model, chosen, model.family.latent_shape(Size.square(64)), (0,))
    *_, last = loop.sample(model, model.encode(asked), x, chosen, noise)
    return float(model.codec.decode(last.x)[:, :3].mean())
