"""The prompt sheet: its lists, and its layout at any size."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks import sheet
from dit_tools.methods.metrics.binding import split_prompt

LISTS = Path(sheet.HERE)


def test_the_lists_are_what_their_names_say() -> None:
    every = sheet.prompts_of(LISTS / "prompts64.txt")
    assert len(every) == len(set(every)) == 64
    assert every[:40] == sheet.prompts_of(LISTS / "prompts40.txt")
    assert sum(p.startswith(("3d ", "flat ")) for p in every) == 8
    pairs = sheet.prompts_of(LISTS / "binding.txt")
    assert len({split_prompt(p) for p in pairs}) == len(pairs) == 56


def test_tiles_keep_their_order_and_opacity_and_take_any_size() -> None:
    tiles = [Image.new("RGBA", (16, 16), colour) for colour in ("red", "lime", "blue")]
    tiles.append(Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    for side, made in ((16, sheet.sheet(tiles, 2)), (40, sheet.sheet(tiles, 2, 40))):
        assert made.size == (2 * side, 2 * side)
        middle = side // 2
        seen = [made.getpixel((x + middle, y + middle)) for y in (0, side) for x in (0, side)]
        assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
