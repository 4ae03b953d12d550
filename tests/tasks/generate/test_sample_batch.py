"""What becomes of the codec's channels, and of memory that runs out."""

import numpy as np
import pytest

from dit_tools.core.errors import MemoryLimitError, ModelError
from dit_tools.jobs.expand import Job
from dit_tools.jobs.result import GeneratedImage, layers, rgb
from dit_tools.jobs.settings import Settings
from dit_tools.tasks.generate.sample_batch import sample_batch
from tests.support import numpy_model

STRAIGHT = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
ALPHA = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5, 1)


def drawn(**options):
    """An image whose straight colours are known, as a codec gives it: over white, and opacity."""
    over_white = STRAIGHT * ALPHA + (1 - ALPHA)
    pixels = np.concatenate([over_white, ALPHA], 2).transpose(2, 0, 1)
    job = Job(0, "a", 0, Settings(**options))
    return GeneratedImage(job, pixels, None, 4, 5, 0.0)


def test_opaque_pictures_stay_over_white():
    assert np.array_equal(layers(drawn(), True), drawn().pixels.transpose(1, 2, 0)[:, :, :3])


def test_transparent_pictures_have_straight_colours():
    made = layers(drawn(transparent=True), True)
    solid = ALPHA[:, :, 0] > 0.05
    assert np.abs(made[:, :, :3] - STRAIGHT)[solid].max() < 1e-5
    assert np.array_equal(made[:, :, 3:], ALPHA)
    assert (made[0, 0] == (1, 1, 1, 0)).all()  # where nothing is, white


@pytest.mark.parametrize("colour", ["#000000", "#ff8000", "#ffffff"])
def test_a_background_lies_under_the_straight_colours(colour):
    made = layers(drawn(background=colour), True)
    expected = STRAIGHT * ALPHA + (1 - ALPHA) * np.array(rgb(colour))
    assert np.abs(made - expected).max() < 1e-6


def test_values_that_are_no_numbers_are_refused():
    image = drawn()
    image.pixels[0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="not numbers"):
        layers(image, True)


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("bad_alloc"),
    ],
)
def test_running_out_of_memory_is_told_as_such(error):
    model = numpy_model.model()

    def fail(**inputs):
        raise error

    model.network.__class__ = type("Full", (numpy_model.NumpyNetwork,), {"__call__": lambda self, **inputs: fail()})
    with pytest.raises(MemoryLimitError, match="out of memory"):
        sample_batch(model, [Job(0, "a", 0, Settings())])


def test_other_errors_stay_what_they_are():
    model = numpy_model.model()
    model.encode = lambda prompts: 1 / 0
    with pytest.raises(ZeroDivisionError):
        sample_batch(model, [Job(0, "a", 0, Settings())])


def test_pipelines_without_adapter_draw_by_themselves():
    class Pipeline:
        def accept(self, plan):
            return plan

        def pixels(self, prompts, seeds, plan, progress):
            progress(plan.steps, plan.steps)
            return np.stack([np.full((3, 16, 16), seed / 10, np.float32) for seed in seeds])

    model, seen = numpy_model.model(), []
    model.pipeline = Pipeline()
    jobs = [Job(0, "a", 1, Settings()), Job(1, "a", 2, Settings())]
    made = sample_batch(model, jobs, lambda done, total: seen.append((done, total)))
    assert [float(image.pixels.mean()) for image in made] == pytest.approx([0.1, 0.2])
    assert seen == [(3, 3)] and model.network.calls == []
