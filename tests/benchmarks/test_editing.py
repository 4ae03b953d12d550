"""The editing benchmark: its cases are made alike every time, and its scores have their limits."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from benchmarks import editing, editing_cases, editing_runs, editing_scores
from dit_tools.core.registry import names
from dit_tools.media import image


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Six drawings in two styles: discs of one hue in different places."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "emoji").mkdir()
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    lines = []
    for style in editing_cases.STYLES:
        with zipfile.ZipFile(folder / f"emoji/{style}.zip", "w") as archive:
            for i, rgb in enumerate(((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9))):
                picture = np.zeros((128, 128, 4), np.float32)
                picture[(x - 0.2 * i) ** 2 + y**2 < 0.3] = (*rgb, 1)
                archive.writestr(f"{i}.png", image.encode(picture, "png"))
                lines.append(
                    {
                        "file": f"{style}.zip/{i}.png",
                        "style": style,
                        "skin_tone": None,
                        "name": f"thing {i}",
                        "group": "Objects",
                    }
                )
    text = "\n".join(map(json.dumps, lines))
    (folder / "emoji/captions.jsonl").write_text(text)
    return editing_cases.Emoji(folder)


def test_cases_are_the_same_for_the_same_seed_and_say_what_changes(emoji, tmp_path):
    made, again, other = (editing_cases.cases(emoji, 9, seed) for seed in (0, 0, 1))
    assert [c.kind for c in made] == ["colour", "object", "added"] * 3
    for a, b in zip(made, again, strict=True):
        assert (a.source, a.target) == (b.source, b.target) and np.array_equal(a.mask, b.mask)
    assert [c.target for c in made] != [c.target for c in other]
    colour = made[0]
    one, two = (set(text.split()) for text in (colour.source, colour.target))
    assert one - two <= set(editing_cases.COLOURS) and two - one <= set(editing_cases.COLOURS) and one != two
    assert colour.mask[colour.picture[:, :, 3] > 0.5].all()  # a disc of one colour, and its edge
    editing_cases.write(made, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "edits.jsonl").read_text().splitlines()]
    assert len(lines) == 9 and lines[2]["prompt"] == made[2].target
    mask = image.read(tmp_path / lines[2]["mask"]).pixels[:, :, 0] > 0.5
    assert np.array_equal(mask, made[2].mask)


def test_scores_of_the_picture_itself_and_of_another(emoji):
    case = editing_cases.cases(emoji, 1, 0)[0]
    same = editing_scores.scores(case, editing_cases.seen(case.picture))
    assert same["psnr"] == 100 and same["ssim"] == 1 and same["structure"] == same["mse"] == 0
    inside = editing_cases.seen(case.picture).copy()
    inside[:, case.mask] = 0
    assert editing_scores.scores(case, inside)["psnr"] == 100  # the mask may change as it likes
    other = editing_scores.scores(case, np.zeros_like(inside))
    assert other["psnr"] < 10 and other["ssim"] < 0.9 and other["structure"] > 1


def lines(psnr, target, count=10):
    """Cases of one run: ``target`` of them are found."""
    figures = {"ssim": 1.0, "mse": 1.0, "structure": 1.0, "calls": 2}
    return [{"case": i, "psnr": psnr, "found": i < target, **figures} for i in range(count)]


def test_a_method_is_worth_it_when_plain_inversion_is_nowhere_as_good_in_both(tmp_path):
    store = editing.Store(tmp_path, {"model": "x"})
    weak, strong = editing.PLAIN[:2]
    masked = editing.PLAIN_MASKED[0]
    for run, psnr, target in (
        ("source", 100, 0),
        (weak, 20, 1),
        (strong, 10, 5),
        (masked, 30, 5),
        ("flowedit", 16, 4),
        ("img2img", 14, 2),
        ("eim", 9, 5),
        ("inpaint", 16, 4),
        ("masactrl", 10, 6),
    ):
        store.add(run, lines(psnr, target))
    runs = ["source", weak, strong, "flowedit", "img2img", "eim", "inpaint", "masactrl"]
    rows = {row.run: row for row in editing.rows_of(store, runs[1:])}
    assert [rows[run].worth for run in runs] == [None, None, None, True, False, False, False, True]
    assert rows["flowedit"].target == 40 and rows["flowedit"].count == 10
    text = editing.table(list(rows.values()))
    assert text.count("| worth it |") == 2 and text.count("| plain |") == 2
    with pytest.raises(SystemExit, match="holds other results"):
        editing.Store(tmp_path, {"model": "y"})


def test_only_the_cases_of_a_run_are_compared(tmp_path):
    store = editing.Store(tmp_path, {})
    plain = lines(20, 2)
    store.add(editing.PLAIN[0], [*plain[:5], *({**line, "psnr": 90} for line in plain[5:])])
    store.add("flowedit", lines(21, 1, count=5))
    (_, row) = editing.rows_of(store, [editing.PLAIN[0], "flowedit"])
    assert row.worth and row.count == 5


def test_runs_name_methods_that_exist():
    found = {editing_runs.Run.of(run).method.info.name for run in editing.RUNS}
    special = {"diffeditor", "interpolate"}  # other work than the cases ask for
    assert found == set(names("editing")) - special


def test_edits_made_together_are_those_made_alone_and_a_run_goes_on_where_it_stopped(emoji, tmp_path):
    made = editing_cases.cases(emoji, 3, 0)
    editor = editing.Editor("emoji", 2)
    store = editing.Store(tmp_path, {})
    for run in ("inpaint", "inversion:strength=1.0+inversion=ddim"):
        chosen = editing_runs.Run.of(run)
        alone = [editor.edit(chosen, case) for case in made]
        calls = len(editor._known)
        for one, two in zip(alone, editor.edits(chosen, made), strict=True):
            assert np.abs(one[0] - two[0]).max() < 1e-3 and one[1] == two[1]
        assert len(editor._known) > calls
        editing.run_all(editor, store, [run], made, 2)
        assert list(store.cases(run)) == [0, 1]
    again = store.file("inpaint").read_text()
    editing.run_all(editor, store, ["inpaint"], made, 3)
    assert store.file("inpaint").read_text().startswith(again)
    assert list(store.cases("inpaint")) == [0, 1, 2]
    (_, row) = editing.rows_of(store, ["inpaint"])
    assert row.calls == 2 and 0 <= row.target <= 100 and row.psnr > 15
