"""A few hundred cases of every reader; ``python -m tests.fuzz`` runs them by time."""

import random

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_damaged_files_are_refused_by_the_projects_own_errors(target, tmp_path):
    count, _, wrong = fuzz(target, 20, 1, tmp_path, most=150)
    assert not wrong and count > 5


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_sound_files_are_read(target, tmp_path):
    """A target whose seeds are refused would fuzz nothing but its first check."""
    path = tmp_path / (target.suffix if "." in target.suffix[1:] else f"case{target.suffix}")
    if target.name == "latent":
        pytest.skip("a sound latent holds arrays that only an inversion makes")
    for content in target.seeds:
        path.write_bytes(content)
        if target.name == "from-image" and content[:4] not in (b"\x89PNG", b"RIFF") or target.name == "calibration":
            continue
        target.read(path)


def test_cases_depend_on_the_seed_alone():
    made = [mutated((b"abcdef" * 9,), random.Random(f"0/x/{i}")) for i in range(50)]
    assert made == [mutated((b"abcdef" * 9,), random.Random(f"0/x/{i}")) for i in range(50)]
    assert len(set(made)) > 25


def test_what_is_wrong_is_found(tmp_path):
    def bad(path):
        raise KeyError(path.name)

    count, read, wrong = fuzz(Target("bad", bad, (b"abc",)), 5, 0, tmp_path, most=3)
    assert (count, read, len(wrong)) == (3, 0, 3) and "KeyError" in wrong[0]
