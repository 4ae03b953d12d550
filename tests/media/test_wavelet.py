"""The wavelet codec below its file: transform, contexts, entropy coding, quantisation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_tools.core.errors import ModelError
from dit_tools.media.wavelet import contexts, entropy, quantize, tables, tiles, transform
from dit_tools.media.wavelet.entropy import Counter, Reader, Writer, code_tile
from tests.support.coded_scenes import scene

TABLES = tables.built_in()
SIZES = [(1, 1), (1, 9), (5, 2), (12, 12), (13, 47), (31, 64), (96, 160), (101, 99)]


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_comes_back(size: tuple[int, int]) -> None:
    image = scene(*size)
    planes = transform.to_ycbcr(image)
    levels = transform.levels_for(*size)
    low, details = transform.forward(planes, levels)
    low_size, sizes = contexts.band_sizes(*size, levels)
    assert low.shape[1:] == low_size
    assert [tuple(band.shape[1:] for band in level) for level in details] == sizes
    np.testing.assert_allclose(transform.inverse(low, details), planes, atol=2e-3)
    assert (np.rint(transform.to_rgb(planes)) == image).all()


def test_a_coefficient_weighs_what_it_costs_in_the_image() -> None:
    low, details = transform.forward(np.zeros((3, 128, 128), np.float32), 4)
    rng = np.random.default_rng(0)
    for level in details:
        for band in level:
            band[:] = 0
    for level in details:
        for band in level:
            band[0] = rng.standard_normal(band.shape[1:])
            energy = float((transform.inverse(low, details)[0] ** 2).sum() / (band[0] ** 2).sum())
            assert 0.7 < energy < 1.6
            band[:] = 0


def test_contexts_read_only_what_is_decoded_before() -> None:
    """Whatever stands in later passes and bands changes no prediction."""
    rng = np.random.default_rng(1)
    level = contexts.level_of(((9, 8), (8, 9), (8, 8)), None)
    for orientation in range(3):
        for channel in range(3):
            for phase in range(4):
                count = len(contexts.taps(orientation, channel, phase))
                weights = rng.integers(1, 999, count + 1).astype(np.int32)
                before = level.predicted(orientation, channel, phase, weights)
                shape = level.pass_size(orientation, phase)
                level.store(orientation, channel, phase, rng.integers(-9, 9, shape).astype(np.int32))
                assert (level.predicted(orientation, channel, phase, weights) == before).all()


@pytest.mark.parametrize("setting", [0, 300, 700, 1152])
@pytest.mark.parametrize("size", SIZES)
def test_symbols_come_back(size: tuple[int, int], setting: int) -> None:
    step = tiles.step_of(setting)
    rate = TABLES.rate_of(step)
    payload, low, bands = tiles.encode_tile(scene(*size), step, TABLES, rate)
    read_low, read_bands = tiles.decode_tile(payload, size, TABLES, rate)
    assert (read_low == low).all()
    for level, read in zip(bands, read_bands, strict=True):
        for row, read_row in zip(level, read, strict=True):
            assert all((a == b).all() for a, b in zip(row, read_row, strict=True))
    assert tiles.checksum(low, bands) == tiles.checksum(read_low, read_bands)


@settings(max_examples=40)
@given(st.lists(st.integers(-70_000, 70_000), min_size=1, max_size=60), st.integers(0, 6), st.integers(0, 47))
def test_any_integer_is_coded(values: list[int], shift: int, bucket: int) -> None:
    given_values = np.array(values, np.int32) << shift
    writer = Writer(TABLES)
    entropy.code_values(writer, (0, 0, 0, 0, bucket), shift, len(values), given_values)
    read = entropy.code_values(Reader(TABLES, writer.bytes()), (0, 0, 0, 0, bucket), shift, len(values), None)
    assert (read == given_values).all()


def test_the_bits_that_the_tables_promise_are_the_bits_of_the_file() -> None:
    size, step = (256, 320), 12.0
    rate = TABLES.rate_of(step)
    payload, low, bands = tiles.encode_tile(scene(*size), step, TABLES, rate)
    counter = Counter(TABLES)
    code_tile(counter, TABLES, size, len(bands), rate, bands, low)
    assert len(payload) * 8 == pytest.approx(counter.bits, rel=0.005, abs=64)


def test_choosing_by_bits_saves_more_than_it_costs() -> None:
    """At equal squared error, the optimised file is smaller than the plainly rounded one."""
    image, size = scene(256, 320), (256, 320)
    low, details = transform.forward(transform.to_ycbcr(image), transform.levels_for(*size))

    def coded(step: float, weight: float) -> tuple[float, float]:
        rate = TABLES.rate_of(step)
        bands = quantize.quantize(details, size, step, TABLES, rate, weight)
        counter = Counter(TABLES)
        code_tile(counter, TABLES, size, len(bands), rate, bands, quantize.quantize_low(low, step))
        rgb, _ = tiles.rebuild(quantize.quantize_low(low, step), bands, step, size)
        return counter.bits, float(((np.moveaxis(rgb, 0, -1) + 128 - image) ** 2).mean())

    chosen = coded(14.0, quantize.LAMBDA)
    plain = [coded(step, 0.0) for step in (14.0, 16.0, 18.0, 21.0, 24.0)]
    same_error = np.interp(chosen[1], [error for _, error in plain], [bits for bits, _ in plain])
    assert chosen[0] < 0.97 * same_error


def test_masking_needs_a_busy_neighbourhood() -> None:
    flat = [[np.zeros((4, 4), np.int32)] * 3 for _ in range(3)]
    assert (quantize.masking(flat, 10.0, 0, (4, 4)) == 1).all()  # type: ignore[operator]
    assert quantize.masking(None, 10.0, 0, (4, 4)) is None
    busy = [[np.full((4, 4), 9, np.int32)] * 3 for _ in range(3)]
    found = quantize.masking(busy, 10.0, 0, (4, 4))
    assert found is not None and found.shape == (8, 8) and 1.5 < found.max() <= quantize.MOST_MASKING


def test_the_format_stays_what_it_is() -> None:
    """A change of one bit here makes every file that exists unreadable: it needs a new version."""
    rng = np.random.default_rng(3)
    arrays = {
        "weights": rng.integers(0, 400, TABLES.arrays["weights"].shape).astype(np.int32),
        "values": rng.integers(1, 9000, TABLES.arrays["values"].shape).astype(np.uint16),
        "low": rng.integers(1, 9000, (2, entropy.SYMBOLS)).astype(np.uint16),
        "flags": rng.integers(1, 9000, TABLES.arrays["flags"].shape).astype(np.uint16),
        "steps": TABLES.arrays["steps"],
    }
    made = tables.Tables(arrays)
    low = rng.integers(-300, 300, (3, 7, 9)).astype(np.int32)
    _, sizes = contexts.band_sizes(52, 67, 3)
    bands = [[[rng.integers(-2, 3, size).astype(np.int32) ** 3 for _ in range(3)] for size in level] for level in sizes]
    writer = Writer(made)
    code_tile(writer, made, (52, 67), 3, 2, bands, low)
    payload = writer.bytes()
    read_low, _ = code_tile(Reader(made, payload), made, (52, 67), 3, 2)
    assert (read_low == low).all()
    assert made.digest.hex() == "43bbb24bfecb6507"
    assert hashlib.sha256(payload).hexdigest()[:16] == "25a2957deee38ca7"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("values", lambda a: np.where(a == a.max(), 0, a).astype(np.uint16)),
        ("weights", lambda a: -a),
        ("weights", lambda a: a + 60_000),
        ("low", lambda a: a[:1]),
        ("flags", lambda a: a.astype(np.int64)),
    ],
)
def test_damaged_tables_are_refused(name: str, change) -> None:
    with pytest.raises(ModelError, match="codec tables"):
        tables.Tables(TABLES.arrays | {name: change(TABLES.arrays[name])})
    with pytest.raises(ModelError, match="missing"):
        tables.Tables({key: value for key, value in TABLES.arrays.items() if key != name})
