"""``core.size``."""

from __future__ import annotations

from dit_tools.core.size import Size


def test_a_size_is_an_image_unless_it_has_frames() -> None:
    assert Size(2, 3) == Size(2, 3, 1) != Size(2, 3, 5)
    assert Size.square(4) == Size(4, 4)
    assert Size(2, 3).sides == (2, 3)
    assert str(Size(512, 768)) == "768x512"
