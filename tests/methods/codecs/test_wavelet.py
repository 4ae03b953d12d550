"""The built-in codec: any size, the same symbols everywhere, damage refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import InputError, ModelError
from dit_tools.media import dit_file
from dit_tools.media.wavelet import seams, tables
from dit_tools.methods.codecs import wavelet
from dit_tools.methods.codecs.wavelet import Wavelet
from dit_tools.models.decoder_network import initializers, open_network
from tests.support.coded_scenes import scene

CODEC = Wavelet()
NETWORK = tables.FOLDER / "decoder.onnx"


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a.astype(np.float64) - b).mean() / 255**2))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (17, 16), (65, 33), (200, 300)])
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    image = scene(*size)
    file = dit_file.parse(CODEC.pack(image, 200).to_bytes())
    decoded = CODEC.unpack(file, open_network(NETWORK, threads=1))
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    assert psnr(decoded, image) > 38


def test_more_bytes_are_nearer() -> None:
    image = scene(192, 256)
    run = open_network(NETWORK, threads=1)
    files = [CODEC.pack(image, setting) for setting in (300, 500, 700, 900)]
    sizes = [len(file.to_bytes()) for file in files]
    quality = [psnr(CODEC.unpack(file, run), image) for file in files]
    assert sizes == sorted(sizes, reverse=True) and quality == sorted(quality, reverse=True)
    assert sizes[0] > 5 * sizes[-1]


def test_the_network_helps() -> None:
    image = scene(192, 256, seed=4)
    file = CODEC.pack(image, 850)
    run = open_network(NETWORK, threads=1)
    assert psnr(CODEC.unpack(file, run), image) > psnr(CODEC.unpack(file, None), image) + 0.05


def test_threads_optimisation_and_backend_change_pixels_by_two_at_most() -> None:
    import onnxruntime

    image = scene(120, 168, seed=2)
    file = dit_file.parse(CODEC.pack(image, 600).to_bytes())
    wanted = CODEC.unpack(file, open_network(NETWORK, threads=1)).astype(int)
    runs = [open_network(NETWORK, threads=2), open_network(NETWORK, "torch", threads=1)]
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(NETWORK, options, providers=["CPUExecutionProvider"])
        runs.append(lambda image, steps, s=session: s.run(None, {"image": image, "steps": steps})[0])
    for run in runs:
        assert abs(CODEC.unpack(file, run).astype(int) - wanted).max() <= 2


def test_no_weight_of_the_network_reaches_the_symbols(tmp_path: Path, monkeypatch) -> None:
    """With every weight perturbed the checksum of the symbols still holds; only pixels move."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(NETWORK)
    rng = np.random.default_rng(0)
    for weight in model.graph.initializer:
        if "." in weight.name:
            array = numpy_helper.to_array(weight)
            noisy = (array * (1 + 0.2 * rng.standard_normal(array.shape))).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(noisy, weight.name))
    changed = tmp_path / "changed.onnx"
    onnx.save(model, changed)
    image = scene(120, 168, seed=2)
    file = dit_file.parse(CODEC.pack(image, 700).to_bytes())
    seen: list[int] = []
    real = wavelet._verify
    monkeypatch.setattr(wavelet, "_verify", lambda crc, file: (seen.append(crc), real(crc, file)))
    plain = CODEC.unpack(file, open_network(NETWORK, threads=1))
    other = CODEC.unpack(file, open_network(changed, threads=1))
    assert seen == [file.symbols] * 2
    assert (plain != other).any()


def test_torch_finds_every_weight() -> None:
    weights = initializers(NETWORK)
    assert {"enter.weight", "leave.bias", "first.0.weight", "second.0.bias"} <= weights.keys()


def test_symbols_that_do_not_match_are_said() -> None:
    file = CODEC.pack(scene(40, 40), 500)
    for call in (lambda f: CODEC.unpack(f, None), lambda f: CODEC.thumbnail(f, 20)):
        with pytest.raises(InputError, match="do not match their checksum"):
            call(dataclasses.replace(file, symbols=file.symbols ^ 1))


def test_other_tables_and_codecs_are_refused() -> None:
    file = CODEC.pack(scene(40, 40), 500)
    with pytest.raises(ModelError, match="other tables"):
        CODEC.unpack(dataclasses.replace(file, digest=b"otherone"), None)
    with pytest.raises(ModelError, match="codec 7"):
        CODEC.unpack(dataclasses.replace(file, codec=7), None)
    with pytest.raises(InputError, match="rate 200"):
        CODEC.unpack(dataclasses.replace(file, rate=200), None)


def test_tiles_leave_no_seam(monkeypatch) -> None:
    """A slope in tiles of 64 has no step across their borders, which it has if nothing evens them out."""
    y, x = np.mgrid[:200, :200]
    image = np.stack([x * 0.6 + y * 0.5, y * 1.0, 200 - x * 0.7], -1).astype(np.uint8)
    monkeypatch.setattr(wavelet, "TILE", 6)
    file = dit_file.parse(CODEC.pack(image, 700).to_bytes())
    assert len(file.tiles) == 16
    edges = [start for start, _ in dit_file.tile_spans(200, 6)][1:]
    run = open_network(NETWORK, threads=1)

    def steps() -> tuple[float, float]:
        """Mean error of the differences between neighbours, down and across, at the borders."""
        found = CODEC.unpack(file, run).astype(int) - image
        down, across = abs(np.diff(found, axis=0)), abs(np.diff(found, axis=1))
        return (
            float(np.mean([down[edge - 1].mean() for edge in edges])),
            float(np.mean([across[:, edge - 1].mean() for edge in edges])),
        )

    assert max(steps()) < 1.2
    monkeypatch.setattr(seams, "even_out", lambda *_: None)
    assert min(steps()) > 2


def test_an_edge_of_the_image_at_a_seam_stays() -> None:
    above, below = np.zeros((3, 40, 50), np.float32), np.full((3, 40, 50), 90, np.float32)
    seams.even_out(above, below, 20.0)
    assert (above == 0).all() and (below == 90).all()
    above, below = np.zeros((3, 40, 50), np.float32), np.full((3, 40, 50), 6, np.float32)
    seams.even_out(above, below, 20.0)
    assert abs(below[:, 0] - above[:, -1]).max() < 0.6
    assert (above[:, : -seams.REACH] == 0).all() and (below[:, seams.REACH :] == 6).all()


def test_windows_of_the_network_agree_with_the_whole(monkeypatch) -> None:
    rng = np.random.default_rng(5)
    rgb = (40 * rng.standard_normal((3, 150, 210))).astype(np.float32)
    steps = np.full((2, 38, 53), 20, np.float32)
    run = open_network(NETWORK, threads=1)
    whole = wavelet.corrected(rgb, steps, run)
    monkeypatch.setattr(wavelet, "TILE", 6)
    np.testing.assert_allclose(wavelet.corrected(rgb, steps, run), whole, atol=1e-2)


def test_a_thumbnail_is_small_and_like_the_image() -> None:
    import cv2

    image = scene(240, 400)
    thumbnail = CODEC.thumbnail(CODEC.pack(image, 500), 100)
    assert thumbnail.shape == (60, 100, 3)
    wanted = cv2.resize(image, (100, 60), interpolation=cv2.INTER_AREA)
    assert psnr(thumbnail, wanted) > 26


def test_quality_is_even_in_the_logarithm_of_the_step() -> None:
    settings = [CODEC.setting_of(quality) for quality in range(0, 101, 10)]
    assert settings == sorted(settings, reverse=True)
    assert max(np.diff(settings)) - min(np.diff(settings)) <= 1
    assert 0 < settings[-1] < settings[0] <= CODEC.worst


def test_the_name_on_the_command_line() -> None:
    assert isinstance(spec.parse("codecs", "wavelet"), Wavelet)
