"""Contact sheets: many images as one, with labels; and grids of a sweep, with labelled axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

GAP = 8  # pixels between cells and around the sheet
LABEL_LINES = 2
MAX_PIXELS = 200_000_000  # as many as ``image.read`` takes back
Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)


def contact_sheet(
    pictures: Sequence[np.ndarray],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    background: Colour = WHITE,
) -> np.ndarray:
    """Put images into rows of equal cells, a label under each.

    A cell is as large as the largest image; a smaller one is enlarged until it touches two sides.

    Args:
        pictures: float ``(H, W, C)`` in [0, 1], C = 1, 3 or 4, sizes as they come.
        columns: cells in a row; None: about as many columns as rows.
        labels: one per image, wrapped to two lines, then cut with an ellipsis.
        background: behind cells, letterbox and transparency, in [0, 1].

    Returns:
        float32 ``(H, W, 3)`` in [0, 1].

    Raises:
        UsageError: no image, another number of labels, no column, over 200 megapixels.
    """
    if not pictures:
        raise UsageError("a contact sheet needs at least one image")
    if labels is not None and len(labels) != len(pictures):
        raise UsageError(f"{len(labels)} labels for {len(pictures)} images", "give one for each")
    across = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if across < 1:
        raise UsageError(f"a sheet of {across} columns", "give at least 1")
    across = min(across, len(pictures))
    height, width = _cell(pictures)
    size = _text_size(width)
    below = _label_height(size) if labels is not None else 0
    down = math.ceil(len(pictures) / across)
    canvas = _canvas(across * (width + GAP) + GAP, down * (height + below + GAP) + GAP, background)
    for index, image in enumerate(pictures):
        row, column = divmod(index, across)
        x, y = GAP + column * (width + GAP), GAP + row * (height + below + GAP)
        canvas.paste(_fitted(image, height, width, background), (x, y))
        if labels is not None:
            _write(canvas, labels[index], (x, y + height, width, below), size, background)
    return _pixels(canvas)


def grid_sheet(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[np.ndarray | None]],
    background: Colour = WHITE,
) -> np.ndarray:
    """Show a sweep over two options: a label left of each row and above each column.

    Args:
        rows: label of each row, such as ``cfg 3``.
        columns: label of each column.
        cells: ``cells[row][column]``, float ``(H, W, C)`` in [0, 1]; None stays empty.
        background: as in ``contact_sheet``.

    Returns:
        float32 ``(H, W, 3)`` in [0, 1].

    Raises:
        UsageError: cells that do not fit the labels, no image at all, over 200 megapixels.
    """
    if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
        raise UsageError(f"the cells are not {len(rows)} rows of {len(columns)}")
    present = [image for row in cells for image in row if image is not None]
    if not present:
        raise UsageError("a grid needs at least one image")
    height, width = _cell(present)
    size = _text_size(width)
    left, above = max(width // 2, 6 * size), _label_height(size)
    wide = left + GAP + len(columns) * (width + GAP)
    canvas = _canvas(wide, above + GAP + len(rows) * (height + GAP), background)
    for column, label in enumerate(columns):
        x = left + GAP + column * (width + GAP)
        _write(canvas, label, (x, 0, width, above), size, background)
    for row, label in enumerate(rows):
        y = above + GAP + row * (height + GAP)
        _write(canvas, label, (GAP, y, left - GAP, height), size, background)
        for column, image in enumerate(cells[row]):
            if image is not None:
                x = left + GAP + column * (width + GAP)
                canvas.paste(_fitted(image, height, width, background), (x, y))
    return _pixels(canvas)


def _cell(pictures: Sequence[np.ndarray]) -> tuple[int, int]:
    for image in pictures:
        if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
            raise UsageError(f"an image must be (H, W, 1|3|4), not {image.shape}")
    return max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)


def _canvas(width: int, height: int, background: Colour) -> Any:
    from PIL import Image

    if width * height > MAX_PIXELS:
        message = f"a sheet of {width}x{height} is over {MAX_PIXELS // 10**6} megapixels"
        raise UsageError(message, "use fewer or smaller images")
    return Image.new("RGB", (width, height), _bytes(background))


def _bytes(colour: Colour) -> tuple[int, ...]:
    return tuple(round(255 * min(max(part, 0.0), 1.0)) for part in colour)


def _fitted(picture: np.ndarray, height: int, width: int, background: Colour) -> Any:
    """The image in the middle of a cell, as large as fits, over the background."""
    import numpy as np
    from PIL import Image

    samples = np.rint(np.nan_to_num(picture, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples).convert("RGBA")
    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (width, height), (*_bytes(background), 255))
    cell.alpha_composite(image, ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell.convert("RGB")


def _text_size(width: int) -> int:
    return min(max(width // 16, 10), 48)  # readable from a thumbnail up to a poster


def _label_height(size: int) -> int:
    return math.ceil(size * 1.3) * LABEL_LINES + GAP


def _write(canvas: Any, label: str, box: tuple[int, int, int, int], size: int, background: Colour) -> None:
    from PIL import ImageDraw, ImageFont

    left, top, width, height = box
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    # Rec. 709 luma says whether black or white stands out.
    luma = 0.2126 * background[0] + 0.7152 * background[1] + 0.0722 * background[2]
    colour = (0, 0, 0) if luma > 0.5 else (255, 255, 255)
    step = math.ceil(size * 1.3)
    lines = wrap(label, width, lambda text: draw.textlength(text, font))
    start = top + (height - step * len(lines)) // 2
    for number, line in enumerate(lines):
        x = left + (width - draw.textlength(line, font)) / 2
        draw.text((x, start + number * step), line, colour, font)


def wrap(label: str, width: float, measure: Any, lines: int = LABEL_LINES) -> list[str]:
    """Break a label into at most ``lines`` lines of ``width``, cutting with an ellipsis.

    Args:
        label: any text; white space of any kind is one space.
        width: space for a line, in the unit of ``measure``.
        measure: text -> its length.
        lines: the most lines.
    """
    # Drawing a prompt of 100 kB to find out that it does not fit would take seconds.
    words, found = " ".join(label[:2000].split()), []
    while words:
        if measure(words) <= width:
            return [*found, words]
        end = _longest(words, width, measure)
        if len(found) == lines - 1:
            while end > 0 and measure(words[:end].rstrip() + "…") > width:
                end -= 1
            return [*found, words[:end].rstrip() + "…"]
        space = words.rfind(" ", 0, end + 1)
        cut = space if space > 0 else max(end, 1)
        found.append(words[:cut])
        words = words[cut:].lstrip()
    return found


def _longest(words: str, width: float, measure: Any) -> int:
    """How many characters fit, found by halving."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(words[:middle]) <= width else (low, middle - 1)
    return low


def _pixels(canvas: Any) -> np.ndarray:
    import numpy as np

    return np.asarray(canvas, np.float32) / np.float32(255)
