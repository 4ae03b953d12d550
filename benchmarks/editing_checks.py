"""Checks of what single editing methods promise, on the built-in model; the cases of editing.py.

    python benchmarks/editing_checks.py [elect] [protect] [move] [eim] [--cases 6] [--steps 10]

elect    background error of the seed that ``--steer elect`` picks, the mean seed's and the best's
         (mean absolute difference outside the mask, of 255), of img2img; network calls
protect  how far edits (img2img) of a protected image lie from those of the image itself, by
         how far edits of the image with random changes of the same size do (RMS of colours)
move     diffeditor: a disc is moved, and its right edge is dragged: distance in pixels from where
         its centre, or the edge, is to be, and PSNR of what must stay, next to the autoencoder's
eim      how far the image-text model leans from source to target over the amounts -1 .. 1, the share of cases
         in which it never falls, and how much other prompts change against the target's
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.editing import Editor
from benchmarks.editing_cases import SIDE, Case, Emoji, cases, seen
from benchmarks.editing_runs import Run
from benchmarks.editing_scores import resized


def edited(editor: Editor, method: str, case: Case, seed: int = 0, steer: str | None = None):
    """Colours over white (3, h, w), the seed that was taken, and network calls."""
    from dit_tools.core import spec
    from dit_tools.media import crop
    from dit_tools.media.image import Picture
    from dit_tools.tasks.edit.run_edit import Part, Task, edit_latents

    run = Run.of(method)
    session = editor.session(editor.model, run.needs)
    image = Picture(case.picture, icc=None, exif=None, bits=8, format="png", note="")
    mask = case.mask if run.masked else None
    region = None if mask is None else run.method.region(mask)
    task = Task(
        "",
        case.target,
        case.source,
        None,
        run.method,
        editor.settings(editor.model),
        seed,
        steer=spec.parse("seed_search", steer) if steer else None,
    )
    whole = crop.whole_image(case.mask.shape, session.size)
    found = edit_latents(Part(session, image, mask, region, whole), task, run.inversion)
    latents = found.x0 if found.latents is None else found.latents
    return session.model.codec.decode(latents)[0][:3], found.seed, session.calls


def elect(editor: Editor, made: Sequence[Case], seeds: int = 6) -> None:
    """The picked seed against the mean and the best one."""
    rows, calls = [], []
    for case in made:
        errors, alone = [], 0
        for seed in range(seeds):
            image, _, alone = edited(editor, "img2img", case, seed)
            kept = ~case.mask
            errors.append(255 * float(abs(resized(image) - seen(case.picture))[:, kept].mean()))
        steered = edited(editor, "img2img", case, steer=f"elect:candidates={seeds}")
        rows.append((errors[steered[1]], float(np.mean(errors)), min(errors)))
        calls.append((steered[2], alone * seeds))
    picked, mean, best = np.mean(rows, axis=0)
    print(
        f"elect: {len(made)} cases, {seeds} seeds: background error picked {picked:.2f}, "
        f"mean {mean:.2f}, best {best:.2f}; calls {np.mean(calls, axis=0)[0]:.0f} "
        f"instead of {np.mean(calls, axis=0)[1]:.0f}"
    )


def protect(editor: Editor, made: Sequence[Case], iterations: int = 30) -> None:
    """Edits of protected images against edits of randomly changed ones."""
    from dit_tools.core import spec
    from dit_tools.media.image import Picture
    from dit_tools.tasks.protect import protect_image

    session = editor.session(editor.model, frozenset({"gradients"}))
    for name in ("sds", "diffusionguard"):
        method, ratios = spec.parse("protection", f"{name}:iterations={iterations}"), []
        for number, case in enumerate(made):
            solid = seen(case.picture).transpose(1, 2, 0)
            image = Picture(np.ascontiguousarray(solid), None, None, 8, "png")
            shielded, _ = protect_image(session, method, image, None, case.source)
            signs = np.random.default_rng(number).choice([-1, 1], solid.shape)
            others = (solid, shielded, (solid + signs * 8 / 255).clip(0, 1))
            edits = [edited(editor, "img2img:strength=0.5", replace(case, picture=opaque(x)))[0] for x in others]
            far = [float(np.sqrt(np.square(x - edits[0]).mean())) for x in edits[1:]]
            ratios.append(far)
        ours, random = np.mean(ratios, axis=0)
        more = sum(a > b for a, b in ratios)
        print(
            f"protect {name}: {len(made)} cases, {iterations} iterations, 8 levels: edits differ "
            f"by {ours:.4f}, with random changes by {random:.4f} ({ours / random:.2f}x), more in "
            f"{more} of {len(made)}"
        )


def opaque(colours: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) as a case's image."""
    return np.concatenate([colours, np.ones_like(colours[:, :, :1])], 2).astype(np.float32)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """A red disc, (SIDE, SIDE, 4)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1).astype(np.float32)
    made = np.ones((SIDE, SIDE, 4), np.float32) * np.array([0.9, 0.1, 0.1, 1], np.float32)
    return np.concatenate([made[:, :, :3], inside[:, :, None]], 2)


def darkness(pixels: np.ndarray) -> np.ndarray:
    """How much each pixel of (3, h, w) belongs to the disc, (h, w)."""
    return np.clip(1 - pixels.min(axis=0) - 0.3, 0, None)


def move(editor: Editor, made: Sequence[Case]) -> None:
    """A disc at 40, 64 of radius 22: moved by 48 to the right; its edge dragged by 24."""
    case = Case("move", disc(40, 64, 22), disc(40, 64, 22)[:, :, 3] > 0.5, "red circle", "red circle")
    plain = edited(editor, "img2img:strength=0", case)[0]
    whole = replace(case, mask=np.ones_like(case.mask))
    for text, chosen in (
        ("diffeditor:right=48", case),
        ("diffeditor:right=48,match=0", case),
        ("diffeditor:task=drag,x=60,y=64,right=24", whole),
        ("diffeditor:task=drag,x=60,y=64,right=24,match=0", whole),
    ):
        after = edited(editor, f"{text}+mask", chosen)[0]
        dark, before = darkness(after), darkness(plain)
        columns = np.arange(SIDE)
        if "drag" in text:
            edge, old = ((d[60:68].mean(axis=0) > 0.3).nonzero()[0].max() for d in (dark, before))
            off, kept = abs(float(edge) - float(old) - 24), np.s_[:, :, :32]
        else:
            centre = float((dark * columns).sum() / dark.sum())
            off, kept = abs(centre - 88), np.s_[:, :32]  # above both places
        errors = [float(np.square(x - seen(case.picture))[kept].mean()) for x in (after, plain)]
        dB = [-10 * np.log10(max(e, 1e-12)) for e in errors]  # noqa: N806
        print(f"move {text}: off by {off:.1f} px, kept {dB[0]:.1f} dB, autoencoder {dB[1]:.1f} dB")


def eim(editor: Editor, made: Sequence[Case]) -> None:
    """How the image-text model follows the amount."""
    from dit_tools.models.clip import clip64

    amounts, leans, others = (-1.0, -0.5, 0.0, 0.5, 1.0), [], []
    texts = clip64().texts([case.target for case in made])
    for number, case in enumerate(made):
        source, target = clip64().texts([case.source, case.target])
        edits = [edited(editor, f"eim:amount={a}", case)[0] for a in amounts]
        features = clip64().pictures(np.stack([resized(x) for x in edits]).astype(np.float32))
        leans.append(features @ (target - source))
        rest = np.delete(texts, number, axis=0)
        others.append(float(abs((features[-1] - features[2]) @ rest.T).mean()))
    lean = np.array(leans)
    rising = (np.diff(lean, axis=1) >= -0.01).all(axis=1).mean()
    shown = ", ".join(f"{a:g}: {v:+.3f}" for a, v in zip(amounts, lean.mean(axis=0), strict=True))
    gain = float((lean[:, -1] - lean[:, 2]).mean())
    print(
        f"eim: {len(made)} cases: judge's lean by amount {shown}; never falls in "
        f"{100 * rising:.0f} %; other prompts move by {np.mean(others) / gain:.2f} of the "
        f"target's"
    )


CHECKS: dict[str, Any] = {"elect": elect, "protect": protect, "move": move, "eim": eim}


def main() -> None:
    """Run the checks that are asked for."""
    from dit_tools.tasks.train.dataset import data_root

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checks", nargs="*", help=", ".join(CHECKS))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    made = cases(Emoji(data_root()), given.cases, 0)
    editor = Editor(given.model, given.steps)
    for name in given.checks or CHECKS:
        CHECKS[name](editor, made)


if __name__ == "__main__":
    main()
