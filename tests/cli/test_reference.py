"""docs/methods.md is written from the code and is current."""

from __future__ import annotations

from dit_cli import manpages, reference
from dit_tools.core import registry, spec


def test_the_page_in_the_repository_is_current() -> None:
    assert manpages.METHODS_PAGE.read_text(encoding="utf-8") == reference.page()


def test_it_has_every_method_with_every_parameter() -> None:
    page = reference.page()
    for category, flag in registry.CATEGORIES.items():
        section = page.split(f"\n## `{flag}` ({category.replace('_', ' ')})\n")[1].split("\n## ")[0]
        for name in registry.names(category):
            entry = section.split(f"### `{name}`\n")[1].split("\n### ")[0]
            for parameter in spec.parameters(registry.get(category, name)):
                assert f"| `{parameter.name}` |" in entry, (category, name, parameter.name)


def test_lines_fit_a_screen_but_for_tables() -> None:
    assert max(len(line) for line in reference.page().splitlines() if not line.startswith("|")) <= 120
