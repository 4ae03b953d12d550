"""What ``--cache slow|medium|fast|ultra`` stand for on a model: tables of measured choices.

``presets.json`` next to this file holds the built-in models', ``presets.json`` in the user's data
folder what ``dit calibrate --presets`` measured: model -> steps -> word -> spec. The row of the
largest number of steps that is not above a run's counts, else the smallest. Models without a table
have the words of ``PRESETS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError
from dit_tools.core.reading import parse_json

SHIPPED = Path(__file__).with_name("cache_presets.json")
MAX_FILE_BYTES = 1 << 20  # bytes of a table that is read


def own_table() -> Path:
    """The user's table."""
    import platformdirs

    return platformdirs.user_data_path("dit") / "presets.json"


def resolve_preset(text: str, model: str, steps: int, words: Mapping[str, str]) -> str:
    """The spec of a word on a model at a number of steps; other texts as they are.

    Raises InputError for a table that cannot be read.
    """
    word = text.strip()
    if word not in words:
        return text
    for path in (own_table(), SHIPPED):
        rows = read_presets(path).get(model, {}) if path.is_file() else {}
        counts = sorted(int(count) for count in rows)
        if counts:
            row = rows[str(max((c for c in counts if c <= steps), default=counts[0]))]
            if word in row:
                return row[word]
    return words[word]


def read_presets(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """A table, checked. Raises InputError when it is no such table."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        found: Any = parse_json(path.read_bytes(), str(path))
        sound = all(
            count.isdecimal() and isinstance(spec, str)
            for rows in found.values()
            for count, row in rows.items()
            for spec in row.values()
        )
    except (OSError, ValueError, AttributeError, InputError) as error:
        raise InputError(f"{path}: no table of presets", "delete it, or measure again") from error
    if not sound:
        raise InputError(f"{path}: no table of presets", "delete it, or measure again")
    return found
