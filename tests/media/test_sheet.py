"""Contact sheets and grids: where images land, that labels are drawn and fit."""

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.media import sheet

RED, GREEN = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)
GAP = sheet.GAP


def flat(height, width, colour):
    return np.broadcast_to(np.asarray(colour, np.float32), (height, width, len(colour)))


def test_cells_lie_in_reading_order():
    made = sheet.contact_sheet([flat(10, 20, RED), flat(10, 20, GREEN)] * 2, columns=3)
    assert made.shape == (2 * 10 + 3 * GAP, 3 * 20 + 4 * GAP, 3) and made.dtype == np.float32
    corners = [(GAP + r * (10 + GAP), GAP + c * (20 + GAP)) for r in (0, 1) for c in (0, 1, 2)]
    seen = [made[y, x].tolist() for y, x in corners]
    assert seen[:4] == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert seen[4:] == [[1, 1, 1]] * 2
    assert (made[:GAP] == 1).all()


def test_smaller_pictures_are_letterboxed():
    made = sheet.contact_sheet([flat(40, 40, RED), flat(10, 5, GREEN)], 2, background=(0, 0, 0))
    cell = made[GAP : GAP + 40, GAP + 40 + GAP : GAP + 80 + GAP]
    green = cell[:, :, 1] > 0.5
    assert green[:, 20].all() and green[20].sum() == 20 and not green[:, :9].any()


def test_transparency_and_grey():
    made = sheet.contact_sheet([flat(8, 8, (1, 0, 0, 0)), flat(8, 8, (0.0,))], 2, background=GREEN)
    assert made[GAP + 4, GAP + 4].tolist() == [0, 1, 0]
    assert made[GAP + 4, GAP + 8 + GAP + 4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("background, ink", [((1, 1, 1), 0), ((0, 0, 0), 1)])
def test_labels_are_drawn_under_their_picture_only(background, ink):
    images = [flat(64, 128, RED)] * 2
    bare = sheet.contact_sheet(images, 2, ["", ""], background)
    made = sheet.contact_sheet(images, 2, ["a cat", ""], background)
    changed = np.argwhere((made != bare).any(axis=2))
    assert changed[:, 0].min() >= GAP + 64
    assert changed[:, 1].min() >= GAP and changed[:, 1].max() < GAP + 128
    assert abs(made[tuple(changed.T)] - ink).min() < 0.1


def test_a_huge_label_stays_in_its_cell_and_is_quick():
    images = [flat(64, 64, RED)] * 2
    bare = sheet.contact_sheet(images, 2, ["", ""])
    made = sheet.contact_sheet(images, 2, ["word " * 20_000, ""])
    changed = np.argwhere((made != bare).any(axis=2))
    assert len(changed) and changed[:, 1].max() <= GAP + 64


def test_wrap():
    def wrap(text, width=10, lines=2):
        return sheet.wrap(text, width, len, lines)

    assert wrap("") == [] and wrap(" a \n b ") == ["a b"]
    assert wrap("one two three") == ["one two", "three"]
    assert wrap("one two three four five") == ["one two", "three fou…"]
    assert wrap("abcdefghijklmno") == ["abcdefghij", "klmno"]
    assert wrap("abcdefghij" * 3) == ["abcdefghij", "abcdefghi…"]
    assert all(len(line) <= 10 for line in wrap("ab " * 30))


def test_grid_labels_both_axes_and_leaves_gaps():
    cells = [[flat(32, 64, RED), None], [flat(32, 64, GREEN), flat(32, 64, RED)]]
    made = sheet.grid_sheet(["cfg 3", "cfg 5"], ["seed 1", "seed 2"], cells)
    assert made.shape[2] == 3
    right, bottom = made.shape[1] - GAP - 32, made.shape[0] - GAP - 16
    assert made[bottom, right].tolist() == [1, 0, 0]
    assert made[bottom, right - 64 - GAP].tolist() == [0, 1, 0]
    assert made[bottom - 32 - GAP, right].tolist() == [1, 1, 1]
    above, left = made[: made.shape[0] - 2 * (32 + GAP)], made[:, : made.shape[1] - 2 * (64 + GAP)]
    assert above.min() < 0.5 and left.min() < 0.5


def test_refusals():
    image = flat(4, 4, RED)
    for call, word in (
        (lambda: sheet.contact_sheet([]), "at least one"),
        (lambda: sheet.contact_sheet([image], labels=["a", "b"]), "2 labels for 1"),
        (lambda: sheet.contact_sheet([image], columns=0), "at least 1"),
        (lambda: sheet.contact_sheet([image[0]]), "H, W"),
        (lambda: sheet.contact_sheet([flat(5000, 5000, (0.0,))] * 9), "megapixels"),
        (lambda: sheet.grid_sheet(["a"], ["b"], [[image, image]]), "1 rows of 1"),
        (lambda: sheet.grid_sheet(["a"], ["b"], [[None]]), "at least one"),
    ):
        with pytest.raises(UsageError, match=word):
            call()
