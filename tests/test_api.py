"""The public names of ``dit_tools``, as docs/python.md uses them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dit_tools
from dit_tools.core.errors import UsageError

PAGE = Path(__file__).parents[1] / "docs/python.md"


def test_the_page_makes_edits_and_saves_an_image(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len([line for line in code.splitlines() if line]) <= 8
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    apple, green = (dit_tools.Image.open(tmp_path / name).pixels for name in ("apple.png", "green.png"))
    assert apple.shape == green.shape and not np.array_equal(apple, green)


def test_importing_it_imports_nothing_heavy():
    heavy = {"numpy", "torch", "dit_tools.tasks.python_api"}
    code = f"import sys, dit_tools; dir(dit_tools); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_an_image_is_what_the_command_writes(tmp_path):
    model = dit_tools.load("emoji")
    (made,) = dit_tools.sample(model, "cat face", dit_tools.plan_for(model, 4), seeds=[5])
    made.save(tmp_path / "library.png")
    words = ["generate", "cat face", "--seed", "5", "--steps", "4", "-o", "command.png", "-q"]
    subprocess.run([sys.executable, "-c", "from dit_cli.main import main; main()", *words], cwd=tmp_path, check=True)
    one, two = (dit_tools.Image.open(tmp_path / f"{name}.png").pixels for name in ("library", "command"))
    assert np.array_equal(one[..., :3], two[..., :3])


def test_what_an_edit_cannot_use_is_refused():
    model = dit_tools.load("emoji")
    image = dit_tools.Image(np.zeros((16, 16, 3), np.float32))
    with pytest.raises(UsageError, match="--method inpaint: needs a mask"):
        dit_tools.edit(model, image, "a", method="inpaint")
    with pytest.raises(UsageError, match="--cache output: --method boundary does not go through"):
        dit_tools.edit(model, image, "a", method="boundary", plan=dit_tools.plan_for(model, 4, cache="output"))
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        dit_tools.paint  # noqa: B018
