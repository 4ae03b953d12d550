"""An image in the terminal: kitty's or iTerm2's protocol, else half blocks in colour."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import numpy as np

MIN_COLUMNS = 8
_CHUNK = 4096  # bytes of base64 that kitty takes at once
_CELL = (10, 20)  # pixels of a character cell, about; terminals scale what they get
_LEVELS = (0, 95, 135, 175, 215, 255)  # of the 6x6x6 cube of the 256 colours


def preview(
    pixels: np.ndarray, stream: TextIO, columns: int, rows: int, environment: Mapping[str, str] | None = None
) -> bool:
    """Draw an image at the cursor, its shape kept, in at most ``columns`` x ``rows`` characters.

    Nothing is drawn where it cannot look right: no terminal, fewer than 8 columns or no row,
    ``TERM=dumb``, ``NO_COLOR``, an encoding without block characters, a terminal that went away.

    Args:
        pixels: float ``(H, W, C)`` in [0, 1], C = 1, 3, or 4, which is put over white.
        stream: where to draw; only a terminal is drawn to.
        columns: available width, in characters.
        rows: available height, in characters.
        environment: what names the terminal; None: ``os.environ``.

    Returns:
        Whether something was drawn.
    """
    known = os.environ if environment is None else environment
    kind = _kind(known)
    if columns < MIN_COLUMNS or rows < 1 or kind == "none" or not stream.isatty():
        return False
    height, width = pixels.shape[:2]
    # A cell is twice as high as wide, so an image of one row has two pixels in height.
    scale = min(columns / width, 2 * rows / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale / 2))
    try:
        if kind in ("kitty", "iterm"):
            image = _image(pixels)
            image.thumbnail((across * _CELL[0], down * _CELL[1]))
            text = (_kitty if kind == "kitty" else _iterm)(_png(image), across, down)
        else:
            "▀".encode(stream.encoding or "ascii")
            image = _image(pixels).resize((across, 2 * down))
            text = _blocks(image, _truecolour if kind == "truecolour" else _cube)
        stream.write(text)
        stream.flush()
    except (OSError, UnicodeEncodeError):
        return False
    return True


def _kind(known: Mapping[str, str]) -> str:
    term = known.get("TERM", "")
    if known.get("NO_COLOR") or term in ("", "dumb"):
        return "none"
    if not (known.get("TMUX") or term.startswith(("screen", "tmux"))):  # they pass no images on
        if known.get("KITTY_WINDOW_ID") or "kitty" in term or "ghostty" in term:
            return "kitty"
        if known.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
            return "iterm"
    return "truecolour" if known.get("COLORTERM") in ("truecolor", "24bit") else "256"


def _image(pixels: np.ndarray) -> Any:
    import numpy as np
    from PIL import Image

    if pixels.shape[2] == 4:
        pixels = pixels[:, :, :3] * pixels[:, :, 3:] + (1 - pixels[:, :, 3:])
    samples = np.rint(np.nan_to_num(pixels, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(samples if samples.shape[2] == 3 else samples.repeat(3, axis=2))


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _kitty(data: str, across: int, down: int) -> str:
    """The kitty graphics protocol: PNG (f=100), shown at once (a=T), no answer wanted (q=2)."""
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    text = []
    for number, piece in enumerate(pieces):
        more = int(number < len(pieces) - 1)
        keys = f"a=T,f=100,q=2,c={across},r={down},m={more}" if number == 0 else f"m={more}"
        text.append(f"\x1b_G{keys};{piece}\x1b\\")
    return "".join(text) + "\n"


def _iterm(data: str, across: int, down: int) -> str:
    keys = f"inline=1;width={across};height={down};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{data}\x07\n"


def _blocks(image: Any, colour: Any) -> str:
    """Two pixels a character: the upper one as ink of a half block, the lower one as paper."""
    import numpy as np

    samples = np.asarray(image)  # (2 rows, columns, 3)
    lines = []
    for upper, lower in zip(samples[::2].tolist(), samples[1::2].tolist(), strict=True):
        cells = (f"\x1b[38;{colour(a)};48;{colour(b)}m▀" for a, b in zip(upper, lower, strict=True))
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


def _truecolour(colour: list[int]) -> str:
    return "2;" + ";".join(map(str, colour))


def _cube(colour: list[int]) -> str:
    """The nearest of the 256 colours: the 6x6x6 cube, or the finer grey ramp for greys."""
    if max(colour) - min(colour) < 8 and 4 <= colour[0] <= 242:
        return f"5;{232 + min(23, max(0, round((sum(colour) / 3 - 8) / 10)))}"
    red, green, blue = (min(range(6), key=lambda i: abs(_LEVELS[i] - part)) for part in colour)
    return f"5;{16 + 36 * red + 6 * green + blue}"
