"""Every editing method on 200 edits of emoji, scored as PIE-Bench scores (Ju et al. 2023).

    python benchmarks/editing.py [--model NAME] [--cases 200] [--steps 28] [--seed 0]
        [--run METHOD[+inversion=SPEC][+mask] ...] [--write FOLDER] [--json FILE]

The cases are made here from the emoji of $DIT_DATA (or ../shared/data), ``--seed`` choosing them,
a third each:

colour    a part of the picture of one colour is turned to another; the prompt names the colours
object    one of two things is exchanged for another
added     a small thing is added in a corner

A case is a source picture, a source prompt, a target prompt and a mask of what may change. With
``--write`` they are written as files: pictures, masks and an instructions file for ``dit edit``.

background  PSNR in dB, SSIM and MSE x 1e4 of the pictures with the mask blackened, over the frame
structure   distance x 1e3 between self-similarities of 8 x 8 cells by their edges and brightness;
            PIE-Bench takes keys of DINO: these figures compare with each other only
target      %, the judge prefers the target prompt to the source's and to 98 of other cases
            (row ``source``: the untouched picture)
calls, seconds  a picture, of the network, and of the whole edit in latents

A method is worth it when no point of plain inversion (DDIM, Euler on a flow, over its strengths)
is as good both in background PSNR and in target; else it is marked "-". Methods are run without the
mask unless ``+mask`` is given, as in PIE-Bench; those that need one get it, and "m" says so. All
are scored as decoded: ``dit edit`` puts the picture's own pixels back outside the mask after that.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 128
STYLES = {"fluent3d": "", "fluentflat": "flat "}
"""Styles that the built-in models know, and how a prompt asks for them."""
GROUPS = ("Food & Drink", "Animals & Nature", "Objects", "Travel & Places", "Activities")
COLOURS = {"red": 0, "orange": 15, "yellow": 28, "green": 60, "blue": 108, "purple": 140}
"""Hues as OpenCV counts them, 0 to 179."""
PLAIN = tuple(f"inversion:strength={s}+inversion=ddim" for s in (0.3, 0.5, 0.7, 1.0))
RUNS = (
    *PLAIN,
    "inversion:strength=0.7+inversion=midpoint", "inversion:strength=0.7+inversion=edict",
    "inversion:strength=0.7+inversion=bdia", "inversion:strength=0.7+inversion=dpm-encoder",
    "inversion:strength=0.7+inversion=direct", "inversion:strength=0.7+inversion=null-text",
    "flowedit", "flowedit:strength=0.5", "img2img", "img2img:strength=0.4", "flowchef",
    "prompt-to-prompt", "prompt-to-prompt:cross=0.4", "prompt-to-prompt:blend=0.3", "masactrl",
    "text-injection", "inpaint+mask", "flowedit+mask", "img2img+mask",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One edit: pixels (SIDE, SIDE, 4) in [0, 1], prompts, and a mask of what may change."""

    kind: str
    picture: Any
    mask: Any
    source: str
    target: str


class Emoji:
    """The drawings by style and code point. Raises SystemExit where the data is not there."""

    def __init__(self, folder: Path):
        lines = folder / "emoji/captions.jsonl"
        if not lines.is_file():
            raise SystemExit(f"{lines}: no such file; set DIT_DATA to the folder of the data")
        rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        kept = [r for r in rows if r["style"] in STYLES and r["group"] in GROUPS
                and not r["skin_tone"] and len(r["name"].split()) <= 3]  # fmt: skip
        self.rows = sorted(kept, key=lambda r: r["file"])
        self._zips = {s: zipfile.ZipFile(folder / f"emoji/{s}.zip") for s in STYLES}

    def drawing(self, row: Mapping[str, Any], side: int) -> np.ndarray:
        """Pixels (side, side, 4), premultiplied by nothing: straight alpha."""
        from PIL import Image

        name = row["file"].split("/", 1)[1]
        opened = Image.open(io.BytesIO(self._zips[row["style"]].read(name))).convert("RGBA")
        return np.asarray(opened.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255


def cases(emoji: Emoji, count: int, seed: int) -> list[Case]:
    """``count`` cases, a third of each kind, the same for the same seed."""
    random = np.random.default_rng(seed)
    makers = (colour, swapped, added)
    made: list[Case] = []
    while len(made) < count:
        case = makers[len(made) % 3](emoji, random)
        if case is not None and 0.02 < case.mask.mean() < 0.7:
            made.append(case)
    return made


def named(row: Mapping[str, Any], words: str = "") -> str:
    """A prompt in the words of the captions that the models are trained on."""
    return STYLES[row["style"]] + (words or row["name"]).lower()


def colour(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """Everything of the most frequent hue is turned to another hue."""
    import cv2

    row = emoji.rows[random.integers(len(emoji.rows))]
    picture = emoji.drawing(row, SIDE)
    hsv = cv2.cvtColor(picture[:, :, :3].copy(), cv2.COLOR_RGB2HSV)
    vivid = (picture[:, :, 3] > 0.5) & (hsv[:, :, 1] > 0.4) & (hsv[:, :, 2] > 0.3)
    near = {name: vivid & _near(hsv[:, :, 0] / 2, hue) for name, hue in COLOURS.items()}
    old = max(near, key=lambda name: near[name].sum())
    if near[old].mean() < 0.08:
        return None
    new = str(random.choice([name for name in COLOURS if name != old]))
    plain = " ".join(word for word in row["name"].split() if word not in COLOURS)
    mask = cv2.dilate(near[old].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return Case("colour", picture, mask, named(row, f"{old} {plain}"), named(row, f"{new} {plain}"))


def _near(hues: np.ndarray, hue: int) -> np.ndarray:
    return np.abs((hues - hue + 90) % 180 - 90) < 10


def swapped(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """A thing for another of the same style and group, where either of them is."""
    row = emoji.rows[random.integers(len(emoji.rows))]
    alike = [r for r in emoji.rows if r["style"] == row["style"] and r["group"] == row["group"]
             and r["name"] != row["name"]]  # fmt: skip
    if not alike:
        return None
    other = alike[random.integers(len(alike))]
    picture, wanted = emoji.drawing(row, SIDE), emoji.drawing(other, SIDE)
    mask = (picture[:, :, 3] > 0.1) | (wanted[:, :, 3] > 0.1)
    return Case("object", picture, mask, named(row), named(other))


def added(emoji: Emoji, random: np.random.Generator) -> Case | None:
    """A small thing in the lower right corner, in front of what is there."""
    one, two = (emoji.rows[random.integers(len(emoji.rows))] for _ in range(2))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[SIDE // 2 :, SIDE // 2 :] = True
    target = f"{named(one)} and {two['name']}"
    return Case("added", emoji.drawing(one, SIDE), mask, named(one), target)


def write(made: Sequence[Case], folder: Path) -> None:
    """The cases as files, for ``dit edit FOLDER --instructions FOLDER/edits.jsonl``."""
    from dit_tools.media import image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, case in enumerate(made):
        names = [f"{i:03d}.png", f"{i:03d}-mask.png"]
        layers = (case.picture, case.mask[:, :, None].astype(np.float32))
        for name, pixels in zip(names, layers, strict=True):
            (folder / name).write_bytes(image.encode(pixels, "png"))
        lines.append({"picture": names[0], "mask": names[1], "source_prompt": case.source,
                      "prompt": case.target})  # fmt: skip
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


# running -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The figures of one run, means over the cases."""

    run: str
    psnr: float
    ssim: float
    mse: float
    structure: float
    target: float
    calls: float
    seconds: float
    masked: bool = False
    worth: bool | None = None


class Editor:
    """A model that edits cases by runs; torch where a run needs it."""

    def __init__(self, model: str, steps: int):
        self.model, self.steps = model, steps
        self._models: dict[str, Any] = {}

    def session(self, needs: frozenset[str]) -> Any:
        """A session of the model, on ONNX Runtime where nothing needs more."""
        from dit_tools.generating.request import merge
        from dit_tools.inverting.session import load_model, open_session

        asked = merge([{"model": self.model, "steps": self.steps, "seed": "0"}])
        backend = "torch" if needs else "auto"
        if backend not in self._models:
            self._models[backend] = load_model(asked, needs)
        return open_session(self._models[backend], asked)

    def edit(self, run: str, case: Case) -> tuple[np.ndarray, int, float]:
        """Colours over white (3, h, w) in [0, 1], network calls and seconds."""
        from dit_tools.editing._latents import Part, Task, edit_latents
        from dit_tools.inverting import frame
        from dit_tools.media.image import Picture

        method, inversion, masked = parsed(run)
        needs = method.info.needs | (inversion.info.needs if uses(method) else frozenset())
        session = self.session(needs)
        picture = Picture(case.picture, icc=None, exif=None, bits=8, format="png", note="")
        mask = case.mask if masked else None
        task = Task("", case.target, case.source, None, method, session.settings, 0)
        whole = frame.whole(case.mask.shape, session.size)
        began = time.perf_counter()
        made = edit_latents(Part(session, picture, mask, mask, whole), task, inversion)
        seconds = time.perf_counter() - began
        if made.latents is None:
            return seen(case.picture), session.calls, seconds
        return session.model.codec.decode(made.latents)[0][:3], session.calls, seconds


def parsed(run: str) -> tuple[Any, Any, bool]:
    """Method, inversion and whether the mask is given, of a run's text."""
    from dit_tools.core import spec

    text, *more = run.split("+")
    method = spec.parse("editing", text)
    inversion = next((m.partition("=")[2] for m in more if m.startswith("inversion=")), "edict")
    return method, spec.parse("inversion", inversion), "mask" in more or method.needs_mask


def uses(method: Any) -> bool:
    """Whether a method inverts by the chosen inversion."""
    return method.info.name in ("inversion", "text-injection")


def seen(picture: np.ndarray) -> np.ndarray:
    """Colours over white, (3, SIDE, SIDE)."""
    alpha = picture[:, :, 3:]
    return (picture[:, :, :3] * alpha + 1 - alpha).transpose(2, 0, 1)


# scores ------------------------------------------------------------------------------------------


def scores(case: Case, made: np.ndarray) -> dict[str, float]:
    """Background PSNR, SSIM, MSE x 1e4, and structure distance x 1e3."""
    from dit_tools.metrics.ssim import Ssim

    before, after = seen(case.picture), resized(made)
    kept = (~case.mask)[None].astype(np.float32)
    a, b = (np.ascontiguousarray(x * kept, np.float32)[None] for x in (before, after))
    mse = float(np.square(a - b, dtype=np.float64).mean())
    far = 1e3 * float(np.square(similarity(before) - similarity(after)).mean())
    return {"psnr": min(-10 * math.log10(max(mse, 1e-20)), 100.0), "mse": 1e4 * mse,
            "ssim": float(Ssim().of(a, b)[0]), "structure": far}  # fmt: skip


def resized(pixels: np.ndarray) -> np.ndarray:
    """(3, h, w) at the cases' size."""
    import cv2

    how = cv2.INTER_AREA if pixels.shape[1] > SIDE else cv2.INTER_CUBIC
    grown = cv2.resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), (SIDE, SIDE),
                       interpolation=how)  # fmt: skip
    return grown.clip(0, 1).transpose(2, 0, 1)


def similarity(pixels: np.ndarray, cells: int = 8) -> np.ndarray:
    """Cosines between the cells' descriptors, (cells^2, cells^2): mean edges in four directions."""
    import cv2

    grey = np.ascontiguousarray(pixels.mean(0), np.float32)
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    layers = np.stack([np.abs(dx), np.abs(dy), np.abs(dx + dy), np.abs(dx - dy), grey, 1 - grey])
    side = SIDE // cells
    parts = layers.reshape(len(layers), cells, side, cells, side).mean((2, 4))
    flat = parts.reshape(len(layers), -1).T
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat @ flat.T


def found(made: Sequence[Case], pictures: Sequence[np.ndarray], among: int = 100) -> float:
    """Percent of pictures whose target prompt the judge prefers to the source's and others'."""
    from dit_tools.metrics._judge import judge

    features = judge().pictures(np.stack([resized(p) for p in pictures]).astype(np.float32))
    targets, sources = (judge().texts([getattr(c, key) for c in made])
                        for key in ("target", "source"))  # fmt: skip
    random, hits = np.random.default_rng(0), 0
    for i, feature in enumerate(features):
        names = {made[i].target, made[i].source}
        others = [j for j, case in enumerate(made) if case.target not in names]
        others = random.permutation(others)[: among - 2]
        rivals = np.concatenate([sources[i : i + 1], targets[others]])
        hits += bool((rivals @ feature < targets[i] @ feature).all())
    return 100 * hits / len(made)


def measure(editor: Editor, run: str, made: Sequence[Case]) -> Row:
    """One run over all cases; the first edit is made twice, and its first time not counted."""
    editor.edit(run, made[0])
    edits = [editor.edit(run, case) for case in made]
    return row_of(run, made, edits)


def row_of(run: str, made: Sequence[Case], edits: Sequence[tuple[np.ndarray, int, float]]) -> Row:
    """The means."""
    each = [scores(case, edit[0]) for case, edit in zip(made, edits, strict=True)]
    mean = {key: float(np.mean([e[key] for e in each])) for key in each[0]}
    calls, seconds = (float(np.mean([edit[i] for edit in edits])) for i in (1, 2))
    masked = run != "source" and parsed(run)[2]
    return Row(run, **mean, target=found(made, [e[0] for e in edits]), calls=calls,
               seconds=seconds, masked=masked)  # fmt: skip


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows, marked by whether plain inversion is as good in both."""
    plain = [row for row in rows if row.run in PLAIN]
    made = []
    for row in rows:
        rivals = [p for p in plain if p.psnr >= row.psnr and p.target >= row.target]
        skip = row in plain or row.run == "source" or not plain
        made.append(row if skip else replace(row, worth=not rivals))
    return made


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| run | | background PSNR | SSIM | MSE e4 | structure e3 | target % | calls | s | |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        word = {None: "", True: "worth it", False: "-"}[r.worth]
        lines.append(
            f"| `{r.run}` | {'m' if r.masked else ''} | {r.psnr:.1f} | {r.ssim:.3f} | {r.mse:.0f} "
            f"| {r.structure:.1f} | {r.target:.0f} | {r.calls:.0f} | {r.seconds:.2f} | {word} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the cases, run, print the table."""
    from dit_tools.training.pictures import data_root

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs="+", default=RUNS)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    made = cases(Emoji(data_root()), given.cases, given.seed)
    if given.write:
        write(made, given.write)
    editor = Editor(given.model, given.steps)
    rows = [row_of("source", made, [(seen(c.picture), 0, 0.0) for c in made])]
    for run in given.run:
        rows.append(measure(editor, run, made))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    rows = judged(rows)
    print(f"\n{len(made)} cases, seed {given.seed}, {given.model}, {given.steps} steps\n")
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
