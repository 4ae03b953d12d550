"""Whole runs on a model in plain numpy: files, batches, resuming, failures, events."""

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import InputError, ModelError, UsageError
from dit_tools.media import image, metadata
from dit_tools.tasks.generate.request import Request, plan_events, plan_generation
from dit_tools.tasks.generate.run import Options
from tests.support.numpy_model import Counting


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def go(*prompts, stand_in=None, options=None, sweeps=(), files=(), listen=None, **rest):
    """Run a request; gives the outcome, the events and the stand-in of the model."""
    outside = {
        k: rest.pop(k) for k in ("output", "overwrite", "skip_existing", "config", "preset", "from_image") if k in rest
    }
    stand_in, events = stand_in or Counting(), []
    request = Request(prompts, rest, files, sweeps, options=options or Options(), **outside)
    run, _ = plan_generation(request, listen or events.append, stand_in.find, stand_in.load)
    return run.start(), events, stand_in


def pixels(path):
    return image.read(path).pixels


def names(folder="."):
    return sorted(p.name for p in Path(folder).iterdir())


def test_a_picture_holds_its_record_and_is_named_by_prompt_and_seed():
    outcome, events, _ = go("a red apple", seed=7, cfg_scale=3)
    assert outcome.written == ["a-red-apple-7.png"] and outcome.exit_code == 0
    record = metadata.read_record("a-red-apple-7.png")
    assert [e["type"] for e in events] == ["start", "item", "done"]
    assert events[1]["record"] == record
    assert (record["prompt"], record["seed"], record["cfg_scale"]) == ("a red apple", 7, 3.0)
    assert (record["width"], record["steps"], record["model_revision"]) == (16, 3, "r1")
    assert "Seed: 7" in (metadata.read_parameters("a-red-apple-7.png") or "")


def test_seed_zero_and_scale_zero_are_recorded():
    go("a", cfg_scale=0)
    record = metadata.read_record("a-0.png")
    assert record["seed"] == 0 and record["cfg_scale"] == 0


def test_a_picture_depends_on_its_seed_not_on_its_batch():
    _, _, alone = go("a", "b", seed="1,2,3", output="one/")
    _, _, together = go("a", "b", seed="1,2,3", output="six/", options=Options(batch_size=4))
    assert len(alone.models[0].network.calls) == 6 * 3
    assert [shape[0] for shape in together.models[0].network.calls] == [8] * 3 + [4] * 3
    for name in names("one"):
        if name.endswith(".png"):
            assert np.array_equal(pixels(f"one/{name}"), pixels(f"six/{name}"))
    assert not np.array_equal(pixels("one/a-1.png"), pixels("one/a-2.png"))


def test_negative_prompts_of_a_batch_stay_with_their_pictures():
    Path("x.jsonl").write_text('{"prompt": "a", "negative-prompt": "n"}\n{"prompt": "a", "negative-prompt": "m"}\n')
    go(files=["x.jsonl"], output="both/", options=Options(batch_size=2))
    go("a", negative_prompt="m", output="m.png")
    assert np.array_equal(pixels("both/a-0-2.png"), pixels("m.png"))
    assert not np.array_equal(pixels("both/a-0.png"), pixels("m.png"))


def test_lines_of_a_file_override_the_command_line():
    Path("x.csv").write_text("prompt,steps,seed\na,5,3\nb,,\n")
    go(files=["x.csv"], steps=2, output="{line}-{prompt}-{seed}.png")
    assert names() == ["2-a-3.png", "3-b-0.png", "x.csv"]
    assert metadata.read_record("2-a-3.png")["steps"] == 5
    assert metadata.read_record("3-b-0.png")["steps"] == 2


def test_existing_files_are_numbered_kept_or_replaced():
    go("a", output="a.png")
    before = Path("a.png").read_bytes()
    assert go("a", seed=1, output="a.png")[0].written == ["a-2.png"]
    outcome, events, stand_in = go("a", seed=2, output="a.png", skip_existing=True)
    assert (outcome.written, outcome.skipped) == ([], 1) and stand_in.loaded == []
    assert events[1]["reason"] == "it exists" and Path("a.png").read_bytes() == before
    assert go("a", seed=1, output="a.png", overwrite=True)[0].written == ["a.png"]
    assert np.array_equal(pixels("a.png"), pixels("a-2.png"))


def test_a_run_into_a_folder_goes_on_where_it_stopped():
    first = go("a", seed="1,2", output="out/")[0]
    Path("out/a-2.png").write_bytes(b"cut off")
    outcome, events, _ = go("a", seed="1,2,3", output="out/")
    assert len(first.written) == 2
    assert [(e["type"], e.get("reason")) for e in events] == [
        ("start", None),
        ("skip", "done before"),
        ("item", None),
        ("item", None),
        ("done", None),
    ]
    assert outcome.written == ["out/a-2-2.png", "out/a-3.png"]  # the damaged one is not ours now
    again, _, stand_in = go("a", seed="1,2,3", output="out/")
    assert again.skipped == 3 and stand_in.loaded == []


def test_another_revision_of_the_model_makes_the_folder_again():
    go("a", output="out/")
    outcome, _, _ = go("a", output="out/", stand_in=Counting(revision="r2"))
    assert outcome.written == ["out/a-0-2.png"]


def test_one_bad_picture_does_not_spoil_its_batch():
    outcome, events, _ = go("a", "nan", "b", output="out/", options=Options(batch_size=3))
    assert outcome.written == ["out/a-0.png", "out/b-0.png"] and outcome.exit_code == 3
    (failed,) = [e for e in events if e["type"] == "error"]
    assert (failed["prompt"], failed["exit"], failed["error"]) == ("nan", 5, "model")
    assert "NaN" in failed["message"] and not Path("out/nan-0.png").exists()
    assert go("b", "a", "nan", output="out/")[0].skipped == 2


def test_only_failures_give_their_own_code():
    outcome, _, _ = go("nan", seed="1,2")
    assert outcome.exit_code == 5 and names() == []


def test_a_model_that_cannot_be_loaded_is_tried_once():
    class Broken(Counting):
        def load(self, reference, wishes):
            self.loaded.append(reference)
            raise ModelError("it is broken", "fix it")

    outcome, events, stand_in = go("a", seed="1..3", stand_in=Broken())
    assert outcome.exit_code == 5 and stand_in.loaded == ["emoji"]
    assert len([e for e in events if e["type"] == "error"]) == 3


def test_a_size_that_the_model_cannot_make():
    outcome, _, _ = go("a", width=20)
    assert str(outcome.failed[0][1]) == "--width 20: not a multiple of 8; use 16 or 24"
    assert outcome.exit_code == 2


def test_a_full_disk_ends_the_run(monkeypatch):
    from dit_tools.jobs import atomic

    def full(part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.PartFile, "flush", full)
    outcome, _, stand_in = go("a", seed="1..5", output="out/")
    assert outcome.exit_code == 4 and len(outcome.failed) == 1
    assert "the disk is full" in str(outcome.failed[0][1]) and names("out") == []
    assert len(stand_in.models[0].network.calls) == 3


def test_ctrl_c_finishes_the_picture_and_the_next_run_goes_on():
    def listen(event):
        if event["type"] == "item" and event["seed"] == 2:
            signal.raise_signal(signal.SIGINT)

    outcome, _, _ = go("a", seed="1..4", output="out/", listen=listen)
    assert outcome.exit_code == 130 and outcome.written == ["out/a-1.png", "out/a-2.png"]
    assert go("a", seed="1..4", output="out/")[0].written == ["out/a-3.png", "out/a-4.png"]


def test_stdout_takes_the_bytes_of_every_picture():
    stream = io.BytesIO()
    outcome, _, _ = go("a", seed="1,2", output="-", options=Options(stdout=stream))
    assert outcome.written == ["-", "-"] and names() == []
    assert stream.getvalue().count(b"\x89PNG\r\n") == 2
    assert metadata.read_record(stream.getvalue())["seed"] == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_every_format_holds_the_record(suffix):
    go("a", output=f"a{suffix}")
    assert metadata.read_record(f"a{suffix}")["prompt"] == "a"


def test_no_metadata():
    go("a", output="a.png", options=Options(metadata=False))
    assert metadata.read_record("a.png") is None and metadata.read_parameters("a.png") is None


def test_transparency_is_written_with_alpha():
    go("a", output="t.png", transparent=True, stand_in=Counting(alpha=True))
    go("a", output="o.png", stand_in=Counting(alpha=True))
    assert pixels("t.png").shape == (16, 16, 4) and pixels("o.png").shape == (16, 16, 3)


def test_a_sweep_has_a_labelled_sheet_and_names_its_values():
    outcome, _, stand_in = go("a", sweeps=["cfg=1,2", "solver=euler,heun"], output="out/")
    assert outcome.files == ["out/sweep.png"] and len(outcome.written) == 4
    assert "a-0-cfg2-solverheun.png" in names("out") and len(stand_in.loaded) == 1
    height, width, _ = pixels("out/sweep.png").shape
    assert height > 2 * 16 and width > 2 * 16
    sheet = pixels("out/sweep.png")
    corner = pixels("out/a-0-cfg2-solverheun.png")[0, 0]
    assert (np.abs(sheet - corner).max(2) < 0.5 / 255).any()


def test_a_contact_sheet_takes_finished_pictures_too():
    go("a", seed="1,2", output="out/")
    outcome, _, _ = go("a", seed="1..3", output="out/", options=Options(grid="sheet.jpg"))
    assert outcome.files == ["sheet.jpg"] and outcome.skipped == 2
    assert pixels("sheet.jpg").shape[1] > 2 * 16


def test_a_film_has_a_frame_per_step():
    import imageio.v3 as imageio

    go("a", seed="1,2", steps=4, options=Options(save_steps="s.gif", batch_size=2))
    assert names() == ["a-1.png", "a-2.png", "s-2.gif", "s.gif"]
    frames = imageio.imread("s-2.gif")
    assert frames.shape[:3] == (4, 16, 16)
    last = np.abs(frames[-1] / 255 - pixels("a-2.png")).max()
    assert last < 0.1  # a palette of 256 colours


def test_two_models_are_loaded_once_each_however_they_alternate():
    Path("x.csv").write_text("prompt,model\na,one\nb,two\nc,one\n")
    outcome, _, stand_in = go(files=["x.csv"])
    assert [reference for reference, _ in stand_in.loaded] == ["one", "two"]
    assert sorted(outcome.written) == ["a-0.png", "b-0.png", "c-0.png"]


def test_a_sweep_over_caches_asks_for_one_backend():
    _, _, stand_in = go("a", sweeps=["cache=none,taylorseer"], output="out/")
    assert [wishes.needs for _, wishes in stand_in.loaded] == [{"stack"}]


def test_from_image_repeats_a_picture_and_the_command_line_wins():
    go("a", seed=5, steps=4, cfg_scale=1.5, negative_prompt="n", output="a.png")
    go(from_image="a.png", output="b.png")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    go("z", from_image="a.png", seed=6, output="c.png")
    record = metadata.read_record("c.png")
    assert (record["prompt"], record["seed"], record["steps"]) == ("z", 6, 4)


def test_config_and_preset_in_their_order():
    Path("c.toml").write_text('prompt = ["a", "b"]\nsteps = 4\nseed = 2\n[preset.fine]\nsteps = 9\ncfg-scale = 1\n')
    go(config="c.toml", preset="fine", seed=3)
    record = metadata.read_record("b-3.png")
    assert (record["steps"], record["cfg_scale"], record["seed"]) == (9, 1.0, 3)


def test_a_dry_run_writes_nothing_and_names_the_same_files(tmp_path):
    stand_in = Counting()
    request = Request(["a"], {"seed": "1,2"}, output="out/", sweeps=["cfg=1,2"])
    run, _ = plan_generation(request, print, stand_in.find, stand_in.load)
    planned = [event["path"] for event in plan_events(run)]
    assert names() == [] and stand_in.loaded == []
    assert sorted(planned) == sorted(run.start().written)
    assert json.dumps(plan_events(run))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"output": "missing/a.png"}, "missing/a.png: cannot be written: the folder does not"),
        ({"output": "a.bmp"}, "a.bmp: suffix '.bmp': no such image format"),
        ({"output": "a.png", "format": "webp"}, "--format webp: -o a.png is a png file"),
        ({"output": "{sed}.png"}, "-o {sed}.png: no field 'sed'; did you mean 'seed'?"),
        ({"output": ""}, "-o: empty"),
        ({"transparent": True, "format": "jpg"}, "--transparent: jpeg holds no transparency"),
        ({"quality": 5}, "--quality: png takes none"),
        ({"overwrite": True, "skip_existing": True}, "--overwrite and --skip-existing exclude"),
        ({"options": Options(save_steps="a.avi")}, "--save-steps a.avi: no animation format"),
        ({"options": Options(grid="no/g.png")}, "no/g.png: cannot be written"),
        ({"options": Options(batch_size=0)}, "--batch-size 0: out of range"),
        ({"preset": "x"}, "--preset x: no such preset"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_found_before_a_model_is_loaded(options, message):
    stand_in = Counting()
    with pytest.raises((UsageError, InputError)) as caught:
        go("a", stand_in=stand_in, **options)
    assert str(caught.value).startswith(message)
    assert stand_in.loaded == [] and os.listdir() == []
