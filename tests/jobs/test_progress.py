"""The bar shows on a terminal only; and the light files of the category stay light."""

import fcntl
import os
import struct
import subprocess
import sys
import termios

import pytest

from dit_tools.jobs.progress import bar

CODE = (
    "import sys; from dit_tools.jobs.progress import bar\n"
    "with bar(2, 'images', sys.argv[1] == 'quiet') as shown: shown.update(2)\n"
)


def test_silent_where_stderr_is_no_terminal(capfd):
    with bar(3, "pictures") as shown:
        shown.update(3)
    assert shown.disable and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("quiet", ["quiet", "loud"])
def test_on_a_terminal(quiet):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    done = subprocess.run([sys.executable, "-c", CODE, quiet], stderr=theirs, stdout=-1, timeout=30)
    os.write(theirs, b"END")
    seen = b""
    while not seen.endswith(b"END"):
        seen += os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)
    assert done.stdout == b"" and (b"images: 100%" in seen) == (quiet == "loud")


@pytest.mark.parametrize(
    "modules, forbidden",
    [
        ("jobs.prompts jobs.seeds jobs.names jobs.atomic jobs.manifest", "numpy PIL tqdm"),
        ("media.image media.metadata media.sheet media.animation", "numpy PIL cv2 imageio"),
        ("media.terminal_preview jobs.progress jobs.interrupt", "numpy PIL tqdm torch"),
    ],
)
def test_imports_stay_light(modules, forbidden):
    imports = "\n".join(f"import dit_tools.{module}" for module in modules.split())
    code = f"{imports}\nimport sys; print([m for m in {forbidden.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
