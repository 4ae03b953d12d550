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

from dit_tools.core.errors import ModelError, UsageError
from dit_tools.core.size import Size
from dit_tools.models.loading import lora
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.models.loading.load import load
from dit_tools.tasks.train import checkpoint, collate, dataset, plot, train_adapter
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.run import run
from dit_tools.tasks.train.session import Session
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
    """A folder with a tiny model and captioned pictures."""
    folder = tmp_path_factory.mktemp("adapters")
    draw_pictures(folder / "pictures", 8)
    pixart.pipeline().save_pretrained(folder / "model")
    return folder


def tuner(family: str, method: str, **more: Any) -> train_adapter.Tuner:
    support = importlib.import_module(f"tests.support.{family}")
    pipe = support.pipeline()
    model = model_from_pipeline(pipe, name=family, revision="0", device="cpu", dtype="float32")
    name = "1" if family == "dit" else "a red apple"
    captions = [dataset.Caption("", name, (), "")] * 2
    side = model.family.default_size if family == "dit" else 32
    shape = model.family.latent_shape(Size.square(side))
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    examples = train_adapter.Examples(latents, captions, np.full(2, 0.5))
    made = recipe(family, Path("x"), method, batch_size=2, size=side, **more)
    return train_adapter.Tuner(made, Session(Path("unused"), dtype="float32"), model, examples)


def loss(made: train_adapter.Tuner, text: str, noise: Any = None, t: float = 0.4) -> float:
    """The loss of the first picture."""
    x0 = made.examples.latents[:1]
    noise = torch.ones_like(x0) if noise is None else noise
    return made.losses([train_adapter.Shot(x0, noise, t, text)]).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_that_go_together_give_what_each_gives_alone(family: str) -> None:
    made = tuner(family, "lora:rank=2")
    name, x0 = made.examples.captions[0].name, made.examples.latents
    shots = [train_adapter.Shot(x0[i : i + 1], torch.full_like(x0[:1], 0.5 - i), 0.3 + 0.4 * i, name) for i in range(2)]
    assert made.parts(shots) == [shots]
    both = made.losses(shots)
    alone = torch.cat([made.losses([shot]) for shot in shots])
    assert torch.allclose(both, alone, rtol=1e-4)
    assert both[0] != both[1]


def test_where_nothing_is_said_every_picture_is_seen_two_hundred_times() -> None:
    made = tuner("pixart", "lora", samples=0)
    assert (made.recipe.adapter.batch_size, len(made.examples.captions)) == (2, 2)
    assert made.steps == 200


def test_what_cannot_go_together_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tuner("pixart", "lora")
    x0 = made.examples.latents[:1]
    shots = [train_adapter.Shot(x0, torch.ones_like(x0), t, "a red apple") for t in (0.2, 0.7)]
    given = made.inputs(shots)
    assert collate.joins(given)
    longer = torch.cat([given[1]["encoder_hidden_states"]] * 2, 1)
    assert not collate.joins([given[0], {**given[1], "encoder_hidden_states": longer}])
    straight = made.network.forward

    def mixing(x: torch.Tensor, *rest: Any, **more: Any) -> Any:  # pictures see each other
        return straight(x.mean(0, keepdim=True).expand_as(x), *rest, **more)

    made.network.forward = lambda hidden_states, **more: mixing(hidden_states, **more)
    shots[1].x0 = -x0
    assert made.parts(shots) == [[shots[0]], [shots[1]]]
    monkeypatch.setattr(collate, "LARGEST", 1)
    assert not collate.fits(made.network)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_an_adapter_and_nothing_else(family: str) -> None:
    made = tuner(family, "lora:rank=2", learning_rate=1e-2)
    before = {n: p.detach().clone() for n, p in made.network.named_parameters() if not p.requires_grad}
    fixed = [loss(made, made.examples.captions[0].name)]
    for _ in range(6):
        made.advance()
    fixed.append(loss(made, made.examples.captions[0].name))
    assert fixed[0] != fixed[1] and np.isfinite(fixed[1])
    after = dict(made.network.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items())
    assert any(p.any() for n, p in after.items() if "lora_B" in n)


def test_the_loss_of_an_untrained_adapter_is_that_of_the_base() -> None:
    plain = None
    for method in METHODS:
        made = tuner("pixart", method)
        value = loss(made, "a red apple")
        plain = value if plain is None else plain
        assert value == plain


def test_targets_are_what_the_network_predicts() -> None:
    """A network that says exactly the truth has no loss, on the path of noise and of velocity."""
    for family in ("pixart", "sd3"):
        made = tuner(family, "lora")
        x0 = made.examples.latents[:1]
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        truth = noise if family == "pixart" else noise - x0
        made.network.forward = lambda *a, truth=truth, **k: (truth,)
        assert loss(made, "a red apple", noise, 0.3) == pytest.approx(0, abs=1e-12)
        times = [made.time(q) for q in (0.001, 0.3, 0.999)]
        assert times == sorted(times) and 0 < times[0] and times[-1] <= 1


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_resumes_to_the_bit_and_is_taken_by_lora(place: Path, tmp_path: Path, method: str) -> None:
    before = digest(place / "model")
    made = recipe(place / "model", place / "pictures", method, learning_rate=1e-2)
    whole = run(made, Session(tmp_path / "whole", sample_every=99), None)
    assert run(made, Session(tmp_path / "halves", stop=2), None) is None
    halves = run(made, Session(tmp_path / "halves", sample_every=99), None)
    assert whole and halves and whole.read_bytes() == halves.read_bytes()
    assert digest(place / "model") == before
    assert (tmp_path / "whole/sheet-000006.png").is_file()
    assert plot.rows(tmp_path / "whole")["adapter"][-1]["step"] == 6

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
    run(made, Session(tmp_path, stop=1), None)
    other = dataclasses.replace(made.adapter, method="difffit")
    with pytest.raises(ModelError, match="made by another recipe or model"):
        run(dataclasses.replace(made, adapter=other), Session(tmp_path), None)
    state = checkpoint.load(tmp_path / "adapter.pt")
    assert state and state["step"] == 1
    with pytest.raises(UsageError, match="an adapter has none"):
        run(made, Session(tmp_path), None, "autoencoder")


def test_an_adapter_for_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    from tests.support import sd3

    for method in ("difffit", "diffscaler"):
        made = recipe(place / "model", place / "pictures", method, learning_rate=1e-2)
        path = run(made, Session(tmp_path / method, sample_every=99), None)
        assert path
        with pytest.raises(ModelError, match="ink.safetensors: does not fit this model"):
            lora.apply(sd3.pipeline(), [lora.Lora(path, 1.0)])


def test_twenty_pictures_teach_the_built_in_model_a_style(tmp_path: Path) -> None:
    """Night: everything on dark blue. The loss falls, and new prompts become dark as well."""
    folder = tmp_path / "night"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        picture = np.full((64, 64, 3), (10, 10, 90), np.uint8)
        top, left = rng.integers(8, 24, 2)
        picture[top : top + 30, left : left + 30] = rng.integers(120, 255, 3)
        Image.fromarray(picture).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("night square", encoding="utf-8")
    made = recipe(
        "emoji", folder, "lora:rank=4", samples=128, batch_size=4, size=64, learning_rate=1e-2, prompt_dropout=0.0
    )
    path = run(made, Session(tmp_path / "run", save_every=3, sample_every=10**6), None)
    rows = plot.rows(tmp_path / "run")["adapter"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    for text, ratio in (("night square", 0.8), ("night heart", 0.97)):  # seen, and never seen
        plain, styled = (brightness(text, loras) for loras in ((), (str(path),)))
        assert styled < ratio * plain, text


def brightness(text: str, loras: tuple[str, ...]) -> float:
    """Mean of a drawn picture in [0, 1]."""
    from dit_tools.sampling import loop
    from tests.support.small import plan

    model = load("emoji", loras=loras, backend="torch")
    asked = train_adapter.ConditionRequest((text,), ("",), Size.square(64), ("cond",))
    chosen = plan(steps=6)
    x, noise = loop.start(model, chosen, model.family.latent_shape(Size.square(64)), (0,))
    *_, last = loop.sample(model, model.encode(asked), x, chosen, noise)
    return float(model.codec.decode(last.x)[:, :3].mean())
