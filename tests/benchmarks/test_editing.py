"""The editing benchmark: its cases are made alike every time, and its scores have their limits."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from benchmarks import editing
from dit_tools.core.registry import names
from dit_tools.media import image


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Six drawings in two styles: discs of one hue in different places."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "emoji").mkdir()
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    lines = []
    for style in editing.STYLES:
        with zipfile.ZipFile(folder / f"emoji/{style}.zip", "w") as archive:
            for i, rgb in enumerate(((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9))):
                picture = np.zeros((128, 128, 4), np.float32)
                picture[(x - 0.2 * i) ** 2 + y**2 < 0.3] = (*rgb, 1)
                archive.writestr(f"{i}.png", image.encode(picture, "png"))
                lines.append({"file": f"{style}.zip/{i}.png", "style": style, "skin_tone": None,
                              "name": f"thing {i}", "group": "Objects"})  # fmt: skip
    text = "\n".join(map(json.dumps, lines))
    (folder / "emoji/captions.jsonl").write_text(text)
    return editing.Emoji(folder)


def test_cases_are_the_same_for_the_same_seed_and_say_what_changes(emoji, tmp_path):
    made, again, other = (editing.cases(emoji, 9, seed) for seed in (0, 0, 1))
    assert [c.kind for c in made] == ["colour", "object", "added"] * 3
    for a, b in zip(made, again, strict=True):
        assert (a.source, a.target) == (b.source, b.target) and np.array_equal(a.mask, b.mask)
    assert [c.target for c in made] != [c.target for c in other]
    colour = made[0]
    one, two = (set(text.split()) for text in (colour.source, colour.target))
    assert one - two <= set(editing.COLOURS) and two - one <= set(editing.COLOURS) and one != two
    assert colour.mask[colour.picture[:, :, 3] > 0.5].all()  # a disc of one colour, and its edge
    editing.write(made, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "edits.jsonl").read_text().splitlines()]
    assert len(lines) == 9 and lines[2]["prompt"] == made[2].target
    mask = image.read(tmp_path / lines[2]["mask"]).pixels[:, :, 0] > 0.5
    assert np.array_equal(mask, made[2].mask)


def test_scores_of_the_picture_itself_and_of_another(emoji):
    case = editing.cases(emoji, 1, 0)[0]
    same = editing.scores(case, editing.seen(case.picture))
    assert same["psnr"] == 100 and same["ssim"] == 1 and same["structure"] == same["mse"] == 0
    inside = editing.seen(case.picture).copy()
    inside[:, case.mask] = 0
    assert editing.scores(case, inside)["psnr"] == 100  # the mask may change as it likes
    other = editing.scores(case, np.zeros_like(inside))
    assert other["psnr"] < 10 and other["ssim"] < 0.9 and other["structure"] > 1


def test_a_method_is_worth_it_when_no_plain_inversion_is_as_good_in_both():
    def row(run, psnr, target):
        return editing.Row(run, psnr, 0, 0, 0, target, 1, 1.0)

    rows = [row(editing.PLAIN[0], 20, 10), row(editing.PLAIN[1], 10, 30), row("flowedit", 15, 20),
            row("img2img", 15, 9), row("source", 100, 0)]  # fmt: skip
    assert [r.worth for r in editing.judged(rows)] == [None, None, True, False, None]
    assert "| worth it |" in editing.table(editing.judged(rows))


def test_runs_name_methods_that_exist_and_one_runs(emoji):
    for run in editing.RUNS:
        editing.parsed(run)
    assert {run.partition(":")[0].partition("+")[0] for run in editing.RUNS} <= set(
        names("editing")
    )
    made = editing.cases(emoji, 3, 0)
    row = editing.measure(editing.Editor("emoji", 2), "inpaint", made)
    assert row.masked and row.calls == 2 and 0 <= row.target <= 100 and row.psnr > 15
    assert editing.judged([row]) == [row]  # nothing to compare with
