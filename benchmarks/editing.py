"""Every editing method on 200 edits of emoji, scored as PIE-Bench scores (Ju et al. 2023).

    python benchmarks/editing.py                       # goes on where it stopped; prints the table
    python benchmarks/editing.py --time 3              # adds seconds, on an idle machine
    python benchmarks/editing.py --table [--write benchmarks/results/editing.md]
        [--model NAME] [--cases 200] [--steps 20] [--seed 0] [--folder runs/editing]
        [--run METHOD[+inversion=SPEC][+source-model=NAME][+mask][+detail] ...] [--files FOLDER]

The cases are made here from the emoji of $DIT_DATA, ``--seed`` choosing them,
a third each:

colour    a part of the image of one colour is turned to another; the prompt names the colours
object    one of two things is exchanged for another
added     a small thing is added in a corner

A case is a source image, a source prompt, a target prompt and a mask of what may change. With
``--files`` they are written as files: images, masks and an instructions file for ``dit edit``.

n           cases: methods that go back through the network or hook it are run on the first few
background  PSNR in dB, SSIM and MSE x 1e4 of the images with the mask blackened, over the frame
structure   distance x 1e3 between self-similarities of 8 x 8 cells by their edges and brightness;
            PIE-Bench takes keys of DINO: these figures compare with each other only
target      %, the image-text model prefers the target prompt to the source's and to 98 of other cases
            (row ``source``: the untouched image)
calls       of the network, an image
s           a whole edit in latents, one at a time; median of ``--time`` cases

A method is "worth it" when plain inversion (DDIM, Euler on a flow) is nowhere as good both in
background PSNR and in target on the same cases: neither at one of its strengths nor on the straight
lines between them. Methods that get the mask ("m") compare with plain inversion that gets it. All
are scored as decoded: ``dit edit`` puts the image's own pixels back outside the mask after that;
"+detail" also adds what ``--keep-detail`` does.

Cases go through the network together where it needs no hooks, and what it has answered for a case
is not asked again by another run: inversions are shared. ``calls`` counts as if they were not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.editing_cases import Case, Emoji, cases, seen, write
from benchmarks.editing_runs import LIMITS, PLAIN, PLAIN_MASKED, RUNS, Run
from benchmarks.editing_scores import Finder, scores

SET = 200
"""Cases that the image-text model's other prompts are drawn from, however many are run."""
CHUNK = 20
"""Cases that every run does before the next ones, so that an unfinished table compares."""
BEGIN, END = "<!-- benchmarks/editing.py -->\n", "<!-- end -->\n"


class Together:
    """Stands for a network or codec function: asks ``ask`` together with other edits."""

    def __init__(self, function: Any, ask: Any):
        self.function, self.ask = function, ask
        self.offers: frozenset[str] = frozenset()

    def __call__(self, **arrays: Any) -> np.ndarray:
        """The function's rows for these arrays, whose first axis is the batch."""
        return self.ask((self.function, {name: _single(x) for name, x in arrays.items()}))

    def blocks(self) -> list[Any]:
        """None: hooks would see rows of other edits."""
        return []


class Codec:
    """An autoencoder that is asked together with other edits."""

    def __init__(self, codec: Any, ask: Any):
        self.codec, self.ask = codec, ask

    def encode(self, pixels: Any) -> np.ndarray:
        """Latents (B, C, h, w)."""
        return Together(self.codec.encode, self.ask)(pixels=pixels)

    def decode(self, latents: Any) -> np.ndarray:
        """Pixels (B, 3 or 4, H, W)."""
        return Together(self.codec.decode, self.ask)(latents=latents)


def _single(x: Any) -> np.ndarray:
    """In single precision, which graphs take: else one question would have several spellings."""
    x = np.asarray(x)
    return np.ascontiguousarray(x, np.float32 if x.dtype == np.float64 else x.dtype)


class Editor:
    """A model that edits cases by runs; torch where a run needs it."""

    def __init__(self, model: str, steps: int):
        self.model, self.steps = model, steps
        self._models: dict[tuple[str, bool], Any] = {}
        self._known: dict[Any, np.ndarray] = {}

    @property
    def revision(self) -> str:
        """The model's."""
        return self._loaded(self.model, frozenset()).revision

    def forget(self) -> None:
        """Drop the network's answers: other cases follow."""
        self._known.clear()

    def edits(self, run: Run, made: Sequence[Case]) -> list[tuple[np.ndarray, int]]:
        """Colours over white (3, h, w) in [0, 1] and network calls, a case each."""
        from benchmarks.lockstep import together

        if run.needs:
            return [self.edit(run, case) for case in made]
        jobs = [partial(lambda case, ask: self.edit(run, case, ask), case) for case in made]
        return together(jobs, self._answers)

    def edit(self, run: Run, case: Case, ask: Any = None) -> tuple[np.ndarray, int]:
        """One edit; ``ask`` answers for the network where several are made at once."""
        from dit_tools.media import crop
        from dit_tools.media.image import Picture
        from dit_tools.tasks.edit.paste_back import compose
        from dit_tools.tasks.edit.run_edit import Part, Task, edit_latents

        session = self.session(self.model, run.needs, ask)
        origin = None
        if run.source_model:
            origin = self.session(run.source_model, run.needs, ask)
            origin.state = session.state
        image = Picture(case.picture, icc=None, exif=None, bits=8, format="png", note="")
        mask = case.mask if run.masked else None
        task = Task("", case.target, case.source, None, run.method, self.settings(self.model), 0)
        whole = crop.whole_image(case.mask.shape, session.size)
        part = Part(session, image, mask, mask, whole, origin=origin)
        found = edit_latents(part, task, run.inversion)
        if found.latents is None:
            return seen(case.picture), session.calls
        made = session.model.codec.decode(found.latents)[0]
        if run.detail:
            plain = session.model.codec.decode(found.x0)[0]
            return seen(compose(image, made, whole, None, plain)), session.calls
        return made[:3], session.calls

    def session(self, model: str, needs: frozenset[str], ask: Any = None) -> Any:
        """A session of a model; ``ask`` as for ``edit``."""
        from dit_tools.jobs.models import open_sampler

        loaded = self._loaded(model, needs)
        if ask is not None:
            loaded = replace(loaded, network=Together(loaded.network, ask), codec=Codec(loaded.codec, ask))
        return open_sampler(loaded, self.settings(model))

    def _loaded(self, model: str, needs: frozenset[str]) -> Any:
        from dit_tools.jobs.models import load_model

        key = (model, bool(needs))
        if key not in self._models:
            self._models[key] = load_model(self.settings(model), needs)
        return self._models[key]

    def settings(self, model: str) -> Any:
        """The settings of the edits on one model."""
        from dit_tools.jobs.settings import merge_settings

        return merge_settings([{"model": model, "steps": self.steps, "seed": "0"}])

    def _answers(self, waiting: list[tuple[int, Any]]) -> list[np.ndarray]:
        """One call of each function for everybody; rows that are known are not asked again."""
        groups: dict[Any, list[int]] = {}
        for place, (_, (function, arrays)) in enumerate(waiting):
            form = tuple((name, x.shape[1:], str(x.dtype)) for name, x in arrays.items())
            groups.setdefault((function, form), []).append(place)
        replies: list[Any] = [None] * len(waiting)
        for (function, _), places in groups.items():
            rows = [self._rows(function, waiting[place][1][1]) for place in places]
            new = {key: row for asked in rows for key, row in asked if key not in self._known}
            if new:
                names = next(iter(new.values()))
                joined = {name: np.concatenate([r[name] for r in new.values()]) for name in names}
                self._known |= dict(zip(new, function(**joined), strict=True))
            for place, asked in zip(places, rows, strict=True):
                replies[place] = np.stack([self._known[key] for key, _ in asked])
        return replies

    def _rows(self, function: Any, arrays: Mapping[str, np.ndarray]) -> list[tuple[Any, Any]]:
        """Each row of a question, with what tells it from others."""
        count = len(next(iter(arrays.values())))
        rows = [{name: x[i : i + 1] for name, x in arrays.items()} for i in range(count)]
        return [((function, *(x.tobytes() for x in row.values())), row) for row in rows]


# results -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The figures of one run, means over its cases."""

    run: str
    count: int
    psnr: float
    ssim: float
    mse: float
    structure: float
    target: float
    calls: float
    seconds: float | None = None
    worth: bool | None = None


class Store:
    """Results in a folder: a JSON line a case in a file a run, and seconds by run.

    Raises SystemExit where the folder holds results of another model, seed or number of steps.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any]):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "setup.json"
        if about.exists() and json.loads(about.read_text()) != dict(setup):
            raise SystemExit(f"{folder}: holds other results, {about.read_text()}; give --folder")
        about.write_text(json.dumps(setup))

    def file(self, run: str) -> Path:
        """Where the cases of a run are."""
        return self.folder / (run.replace(":", "~").replace("/", "_") + ".jsonl")

    def cases(self, run: str) -> dict[int, dict[str, Any]]:
        """The figures of a run by case."""
        file = self.file(run)
        lines = file.read_text().splitlines() if file.exists() else []
        return {line["case"]: line for line in map(json.loads, lines)}

    def add(self, run: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """More cases of a run."""
        with self.file(run).open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def seconds(self, more: Mapping[str, float] | None = None) -> dict[str, float]:
        """Seconds by run, after adding some."""
        file = self.folder / "seconds.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if more:
            known |= more
            file.write_text(json.dumps(known, indent=1))
        return known


def run_all(editor: Editor, store: Store, runs: Sequence[str], made: Sequence[Case], count: int):
    """The first ``count`` cases by every run, chunk by chunk; those that are there are kept."""
    finder = Finder(made)
    done = {run: set(store.cases(run)) for run in ("source", *runs)}
    for start in range(0, count, CHUNK):
        editor.forget()
        for run in done:
            limit = count if run == "source" else min(count, limit_of(run))
            todo = [i for i in range(start, min(start + CHUNK, limit)) if i not in done[run]]
            if not todo:
                continue
            began = time.perf_counter()
            chosen = [made[i] for i in todo]
            edits = (
                [(seen(case.picture), 0) for case in chosen] if run == "source" else editor.edits(Run.of(run), chosen)
            )
            store.add(
                run,
                [
                    {"case": i, **scores(case, image), "found": finder.found(i, image), "calls": calls}
                    for i, case, (image, calls) in zip(todo, chosen, edits, strict=True)
                ],
            )
            print(f"{run}: cases {todo[0]} to {todo[-1]} in {time.perf_counter() - began:.0f} s", flush=True)


def limit_of(run: str) -> int:
    """How many cases are enough for a run that is slow."""
    return min((most for part, most in LIMITS.items() if part in run), default=SET)


def timed(editor: Editor, runs: Sequence[str], made: Sequence[Case], count: int):
    """Median seconds a case of each run, one at a time, turn by turn."""
    spent: dict[str, list[float]] = {run: [] for run in runs}
    for turn in range(count + 1):
        for run in runs:
            began = time.perf_counter()
            editor.edit(Run.of(run), made[turn])
            if turn:  # the first opens graphs and models
                spent[run].append(time.perf_counter() - began)
    return {run: round(statistics.median(each), 3) for run, each in spent.items()}


def row_of(run: str, lines: Sequence[Mapping[str, Any]], seconds: float | None = None) -> Row:
    """The means."""

    def mean(key: str) -> float:
        return float(np.mean([line[key] for line in lines]))

    return Row(
        run,
        len(lines),
        mean("psnr"),
        mean("ssim"),
        mean("mse"),
        mean("structure"),
        100 * mean("found"),
        mean("calls"),
        seconds,
    )


def rows_of(store: Store, runs: Sequence[str]) -> list[Row]:
    """The rows of the runs that have cases, marked by whether plain inversion is as good."""
    known = {run: store.cases(run) for run in ("source", *dict.fromkeys((*PLAIN, *PLAIN_MASKED, *runs)))}
    seconds, made = store.seconds(), []
    for run in ("source", *runs):
        lines = known[run]
        if not lines:
            continue
        row = row_of(run, list(lines.values()), seconds.get(run))
        rivals = PLAIN_MASKED if run != "source" and Run.of(run).masked else PLAIN
        if run != "source" and run not in rivals:
            own = [[known[r][i] for i in lines if i in known[r]] for r in rivals]
            plain = [row_of(r, found) for r, found in zip(rivals, own, strict=True) if len(found) == len(lines)]
            row = replace(row, worth=not beaten(row, plain)) if plain else row
        made.append(row)
    return made


def beaten(row: Row, plain: Sequence[Row]) -> bool:
    """Whether a point of ``plain``, or one on a line between two of them, is as good in both."""
    points = sorted((p.psnr, p.target) for p in plain)
    lines = zip(points, points[1:] or points, strict=False)
    return any(
        a[0] + share * (b[0] - a[0]) >= row.psnr and a[1] + share * (b[1] - a[1]) >= row.target
        for a, b in lines
        for share in np.linspace(0, 1, 101)
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| run | n | background dB | SSIM | MSE e4 | structure e3 | target % | calls | s | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        word = {None: "", True: "worth it", False: "-"}[r.worth]
        plain = "plain" if r.run in (*PLAIN, *PLAIN_MASKED) else word
        seconds = "" if r.seconds is None else f"{r.seconds:.2f}"
        lines.append(
            f"| `{r.run}` | {r.count} | {r.psnr:.1f} | {r.ssim:.3f} | {r.mse:.0f} "
            f"| {r.structure:.1f} | {r.target:.0f} | {r.calls:.0f} | {seconds} | {plain} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the cases, run, print the table."""
    from dit_tools.tasks.train.dataset import data_root

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--cases", type=int, default=SET)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs="+", default=RUNS)
    parser.add_argument("--folder", type=Path, default=Path("runs/editing"))
    parser.add_argument("--time", type=int, default=0, metavar="CASES")
    parser.add_argument("--table", action="store_true", help="print it, and run nothing")
    parser.add_argument("--files", type=Path, help="write the cases there")
    parser.add_argument("--write", type=Path, help="a document that holds the table")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    made = cases(Emoji(data_root()), SET, given.seed)
    if given.files:
        write(made[: given.cases], given.files)
    editor = Editor(given.model, given.steps)
    setup = {"model": given.model, "revision": editor.revision, "steps": given.steps, "seed": given.seed}
    store = Store(given.folder, setup)
    if given.time:
        store.seconds(timed(editor, given.run, made, given.time))
    elif not given.table:
        run_all(editor, store, given.run, made, given.cases)
    rows = rows_of(store, given.run)
    text = table(rows)
    print(f"\nseed {given.seed}, {given.model} {editor.revision}, {given.steps} steps\n\n{text}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if given.write:
        old = given.write.read_text()
        before, _, rest = old.partition(BEGIN)
        given.write.write_text(before + BEGIN + text + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
