"""HASTE and encoders by name: the attention loss, its end, and features of any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dit_tools.core.errors import ModelError
from dit_tools.nn import attention_maps as maps
from dit_tools.nn.encoders import attention, features
from tests.methods.objectives.test_objectives import a_step, examples, predict, trainer, weights

__all__ = ["examples", "trainer"]  # fixtures
PICTURES = np.random.default_rng(0).integers(0, 255, (8, 4, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random vision transformer of three blocks with two heads, 6 x 6 patches."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=24,
        patch_size=4,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("encoders") / "dino"
    Dinov2Model(config).save_pretrained(folder)
    text = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def codec(vision: Path) -> Path:
    """A random autoencoder of three channels, 2 pixels a latent."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = vision.parent / "codec"
    sizes: dict[str, Any] = {
        "block_out_channels": (4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 2,
        "latent_channels": 3,
    }
    AutoencoderKL(**sizes).save_pretrained(folder / "vae")
    return folder


def test_a_vision_model_gives_its_patch_tokens_normalized_as_it_wants(vision: Path) -> None:
    from transformers import Dinov2Model

    model: Any = Dinov2Model.from_pretrained(vision).eval()
    x = torch.from_numpy(PICTURES[:, :3]).float() / 255
    x = torch.nn.functional.interpolate(x, (24, 24), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        hidden = model(pixel_values=(x - 0.5) / 0.25).last_hidden_state[:, 1:]
    made = features(str(vision), PICTURES, 6)
    assert made.shape == (8, 36, 16)
    torch.testing.assert_close(made.float(), hidden, atol=5e-3, rtol=5e-3)


def test_an_autoencoder_gives_its_latents_normalized(codec: Path) -> None:
    made = features(str(codec), PICTURES, 8).float()
    assert made.shape == (8, 64, 3)
    torch.testing.assert_close(made.mean((0, 1)), torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(made.std((0, 1)), torch.ones(3), atol=1e-2, rtol=0)
    assert features(str(codec), PICTURES, 4).shape == (8, 16, 3)


def test_what_is_no_encoder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="encoder .*gone: cannot be loaded") as caught:
        features(str(tmp_path / "gone"), PICTURES, 4)
    assert "\n" not in str(caught.value)


def test_the_teachers_maps_are_over_patches_and_sum_to_one(vision: Path) -> None:
    known = features(str(vision), PICTURES, 6)
    made = attention(str(vision), PICTURES, 6, 2, known)(np.array([5, 1]))
    assert [m.shape for m in made] == [(2, 2, 36, 36)] * 2
    for grid in (6, 3, 4):
        small = attention(str(vision), PICTURES, grid, 1, known)(np.array([0]))[0]
        assert small.shape == (1, 2, grid**2, grid**2)
        torch.testing.assert_close(small.sum(-1), torch.ones(1, 2, grid**2))
    with pytest.raises(ModelError, match="has 3 blocks with attention, 4 are needed"):
        attention(str(vision), PICTURES, 6, 4, known)


def test_pooling_to_the_same_grid_changes_nothing_and_to_half_adds_up() -> None:
    given = torch.rand(2, 3, 16, 16).softmax(-1)
    torch.testing.assert_close(maps.pooled(given, 4), given)
    half = maps.pooled(given, 2)
    cells = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    expected = given[0, 0][cells[1]][:, cells[2]].sum(1).mean()
    assert half[0, 0, 1, 2].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_attention_loss_is_the_cross_entropy_above_the_teachers_entropy() -> None:
    torch.manual_seed(0)
    wanted, logits = torch.randn(2, 2, 5, 5).softmax(-1), torch.randn(2, 3, 5, 5)
    own = logits[:, :2].log_softmax(-1)
    entropy = -(wanted * wanted.log()).sum(-1).mean()
    cross = -(wanted * own).sum(-1).mean()
    assert maps.divergence(wanted, logits).item() == pytest.approx((cross - entropy).item())
    assert maps.divergence(logits.softmax(-1), logits).item() == pytest.approx(0, abs=1e-6)


def test_kept_logits_are_those_of_the_networks_attention(trainer) -> None:
    made = trainer()
    step = a_step(made)
    block = made.subject.networks.transformer.transformer_blocks[0]
    seen: dict[str, torch.Tensor] = {}
    handles = [
        block.attn1.register_forward_hook(lambda m, a, out: seen.update(out=out)),
        block.attn1.to_v.register_forward_hook(lambda m, a, out: seen.update(v=out)),
    ]
    with maps.kept_logits(block.attn1) as logits:
        predict(step)
        weights = logits().softmax(-1)
    for handle in handles:
        handle.remove()
    value = seen["v"].unflatten(-1, (2, -1)).transpose(1, 2)
    joined = (weights @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attn1.to_out[0](joined), seen["out"], atol=1e-5, rtol=1e-4)
    assert not block.attn1.to_q._forward_hooks


def test_attention_alone_reaches_the_chosen_blocks_queries_and_keys(trainer, vision) -> None:
    made = trainer(f"haste:encoder={vision},block=0.7,pairs=2")
    term = made.terms.all[0]
    term.dissimilarity = lambda step: 0.0
    step = a_step(made)
    with term.attach(step):
        predict(step)
    loss = term.loss(step)["alignment"]
    assert loss.item() > 0
    loss.backward()
    blocks = made.subject.networks.transformer.transformer_blocks

    def touched(layer: str) -> list[bool]:
        found = [b.attn1.get_submodule(layer).weight.grad for b in blocks]
        return [g is not None and bool(g.any()) for g in found]

    assert touched("to_q") == touched("to_k") == [True, True, False]
    assert touched("to_v") == [True, False, False]  # the second block's input


def test_training_brings_maps_nearer_to_the_teachers(trainer, vision) -> None:
    made = trainer(f"haste:encoder={vision},weight=5,until=1,block=1", samples=8 * 40)
    seen = []
    for _ in range(40):
        made.advance()
        seen.append(made.losses["haste alignment"].item())
    assert seen[-1] < 0.9 * seen[0]


def test_it_ends_when_the_gradients_point_apart_and_remembers_it(trainer) -> None:
    made = trainer("haste:conflict=1,until=1", samples=8 * 40)
    term = made.terms.all[0]
    for _ in range(3):
        made.advance()
    assert len(term.cosines) == 3 and all(-1 <= c <= 1 for c in term.cosines)
    term.cosines = [-1.0] * 5
    made.advance()
    assert term.ended and term.state_dict()["ended"]
    made.save()
    other = trainer("haste:conflict=1,until=1", samples=8 * 40)
    other.resume()
    plain = trainer(samples=8 * 40)
    plain.subject.networks.load_state_dict(made.subject.networks.state_dict())
    plain.subject.averaged.load_state_dict(made.subject.averaged.state_dict())
    plain.subject.optimizers.load_state_dict(made.subject.optimizers.state_dict())
    plain.step = other.step
    assert other.advance() == plain.advance()
    assert all(torch.equal(a, b) for a, b in zip(weights(other), weights(plain), strict=True))


def test_the_cosine_of_gradients_is_right() -> None:
    p, q = (torch.nn.Parameter(torch.tensor(v)) for v in ([1.0, 2.0], [3.0]))
    a, b = (p * torch.tensor([3.0, 4.0])).sum(), (p * torch.tensor([4.0, -3.0])).sum() + q.sum()
    assert maps.gradient_cosine(a, b, [p, q]) == pytest.approx(0)
    assert maps.gradient_cosine(a, 2 * a, [p]) == pytest.approx(1)
