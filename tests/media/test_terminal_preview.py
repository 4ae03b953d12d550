"""Previews: which protocol is chosen, that sizes fit, and when nothing is drawn."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from dit_tools.media.terminal_preview import preview

TRUE = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def drawn(environment, pixels=None, columns=40, rows=20):
    stream = Terminal()
    pixels = np.tile(np.float32([1, 0, 0]), (30, 60, 1)) if pixels is None else pixels
    assert preview(pixels, stream, columns, rows, environment) is True
    return stream.getvalue()


def test_half_blocks_keep_the_shape():
    lines = drawn(TRUE).splitlines()
    assert [line.count("▀") for line in lines] == [40] * 10  # 60x30 at two pixels a character
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m") and lines[0].endswith("\x1b[0m")


def test_tall_pictures_are_bound_by_rows():
    lines = drawn(TRUE, np.zeros((400, 10, 1), np.float32), 40, 20).splitlines()
    assert len(lines) == 20 and lines[0].count("▀") == 1


def test_upper_and_lower_half():
    pixels = np.zeros((2, 8, 3), np.float32)
    pixels[0] = 1
    text = drawn(TRUE, pixels, 8, 1)
    assert "\x1b[38;2;255;255;255;48;2;0;0;0m▀" in text


def test_256_colours_without_truecolour():
    assert "38;5;196" in drawn({"TERM": "xterm-256color"})
    grey = np.full((8, 8, 1), 0.5, np.float32)
    assert "38;5;244" in drawn({"TERM": "xterm"}, grey)


def test_kitty_sends_a_png_in_pieces():
    noise = np.random.default_rng(0).random((200, 300, 3), np.float32)
    text = drawn({"TERM": "xterm", "KITTY_WINDOW_ID": "1"}, noise)
    pieces = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text)
    assert "a=T,f=100" in pieces[0][0] and "c=40,r=13" in pieces[0][0]
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [keys[-3:] for keys, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    sent = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert sent.format == "PNG" and sent.size[0] <= 400


def test_iterm():
    text = drawn({"TERM": "xterm", "TERM_PROGRAM": "iTerm.app"})
    data = re.fullmatch("\x1b]1337;File=inline=1;width=40;[^:]*:([^\x07]*)\x07\n", text)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (255, 0, 0)


def test_tmux_gets_blocks():
    assert "▀" in drawn({**TRUE, "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"})


@pytest.mark.parametrize(
    "environment, columns, rows",
    [(TRUE, 7, 20), (TRUE, 40, 0), ({**TRUE, "NO_COLOR": "1"}, 40, 20), ({"TERM": "dumb"}, 40, 20), ({}, 40, 20)],
)
def test_nothing_where_it_cannot_look_right(environment, columns, rows):
    stream = Terminal()
    assert preview(np.zeros((9, 9, 3)), stream, columns, rows, environment) is False
    assert stream.getvalue() == ""


def test_nothing_for_a_file_or_an_old_encoding():
    plain, latin = io.StringIO(), Terminal()
    latin.encoding = "latin-1"
    for stream in (plain, latin):
        assert preview(np.zeros((9, 9, 3)), stream, 40, 20, TRUE) is False
        assert stream.getvalue() == ""


def test_a_closed_terminal_is_no_error():
    class Gone(Terminal):
        def write(self, text):
            raise BrokenPipeError

    assert preview(np.zeros((9, 9, 3)), Gone(), 40, 20, TRUE) is False
