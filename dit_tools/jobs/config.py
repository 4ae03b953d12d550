"""``--config FILE.toml`` and ``--preset NAME``: options from files, below the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError, InputError, UsageError
from dit_tools.core.reading import parse_toml
from dit_tools.core.registry import nearest
from dit_tools.jobs.options import read_values

SIZE_LIMIT = 1 << 20  # bytes of a config file


def read_config(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and preset tables of a TOML file; ``prompt`` is text or a list of texts.

    Raises InputError naming the file: unreadable, over 1 MB, bad TOML, an unknown option.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise InputError(f"{path}: over {SIZE_LIMIT} bytes", "a config holds options only")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read: {reason}", "give a TOML file") from None
    try:
        table = parse_toml(content, str(path))
    except InputError as error:
        raise InputError(error.message, "write for example: steps = 30") from None
    presets = table.pop("preset", {})
    if not isinstance(presets, dict) or not all(isinstance(p, dict) for p in presets.values()):
        raise InputError(f"{path}: 'preset' is not a table", "write [preset.NAME]")
    return read_table(table, str(path)), presets


def read_table(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a table, read and checked; ``prompt`` becomes a list of texts."""
    rest = dict(table)
    prompts = rest.pop("prompt", None)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    texts = isinstance(prompts, list) and all(isinstance(text, str) for text in prompts)
    if prompts is not None and not texts:
        raise InputError(f"{where}: 'prompt' is not text", 'write prompt = "a red apple"')
    try:
        made = read_values(rest, where)
    except DitError as error:
        raise InputError(error.message, error.hint) from None
    return made | ({"prompt": prompts} if prompts is not None else {})


def preset_folder() -> Path:
    """Where the user's presets lie: ``presets/NAME.toml`` in the user's config folder."""
    import platformdirs

    return platformdirs.user_config_path("dit") / "presets"


def read_preset(name: str, tables: Mapping[str, Any], config: str = "") -> dict[str, Any]:
    """The options of a preset: a ``[preset.NAME]`` table of the config, else the user's file.

    Raises UsageError, with the nearest name, when there is none.
    """
    if name in tables:
        return read_table(tables[name], f"{config}: preset {name}")
    folder = preset_folder()
    present = sorted(path.stem for path in folder.glob("*.toml"))
    if name in present:
        return read_config(folder / f"{name}.toml")[0]
    known = sorted({*tables, *present})
    hint = nearest(name, known) if known else f"write {folder / f'{name[:40]}.toml'}"
    raise UsageError(f"--preset {name[:40]}: no such preset", hint)
