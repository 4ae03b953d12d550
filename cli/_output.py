"""The output of the commands: paths or NDJSON on stdout, notes and failures on stderr."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dit_cli._errors import say
from dit_tools.core.errors import DitError, ExitCode, UsageError

Listener = Callable[[dict[str, Any]], None]
SHOWN_FIELDS = (
    "seed",
    "width",
    "height",
    "steps",
    "cfg_scale",
    "solver",
    "schedule",
    "guidance",
    "cache",
    "attention",
    "tokens",
    "highres",
    "model",
    "model_revision",
    "backend",
    "device",
    "dtype",
    "seconds",
)
MOST_NAMES = 5  # failed items that are named for one reason


def emitter(json: bool, verbose: int = 0) -> Listener:
    """A listener that prints events as NDJSON, or the paths that were written, one a line."""
    said: set[str] = set()  # prompts that were cut, reported once each
    return print_json if json else lambda event: _print_paths(event, verbose, said)


def print_json(event: dict[str, Any]) -> None:
    """One event as a line of ASCII JSON."""
    print(json_module.dumps(event), flush=True)


def _print_paths(event: dict[str, Any], verbose: int, said: set[str]) -> None:
    # A run that goes on prints finished files, too: the same command prints the same paths.
    if event["type"] in ("item", "skip") and event["path"] not in ("-", None):
        print(event["path"], flush=True)
    if event["type"] == "item" and "unread" in event and event["prompt"] not in said:
        said.add(event["prompt"])
        say(f"dit: {event['path']}: the prompt is too long for the model; this part is not read: {event['unread']}")
    if event["type"] == "item" and "tuned" in event.get("record", ()):
        say(f"dit: {event['path']}: {_tuned(event['record'])}")
    if event["type"] == "item" and "compare" in event.get("record", ()):
        say(f"dit: {event['path']}: {_compared(event['record'])}")
    if event["type"] == "done":
        for path in event["files"]:
            print(path, flush=True)
    if verbose and event["type"] == "item" and "record" in event:
        record = event["record"]
        facts = ", ".join(f"{name} {record[name]}" for name in SHOWN_FIELDS if name in record)
        say(f"dit: {event['path']}: {facts}")
    if verbose and event["type"] == "skip":
        say(f"dit: {event['path']}: skipped: {event['reason']}")


def _tuned(record: dict[str, Any]) -> str:
    """What ``--min-psnr`` chose, in words."""
    found = record["tuned"].get("psnr")
    nearness = "the same pixels" if found is None else f"PSNR {found:.1f} dB"
    return f"--cache {record['cache']} ({nearness} on the first image)"


def _compared(record: dict[str, Any]) -> str:
    """Seconds, speed-up and fidelity of an image against the uncached one, in words."""
    found = record["compare"]
    words = [f"{record['seconds']:.2f} s instead of {found['seconds']:.2f} s ({found['speedup']:.2f}x)"]
    words.append(f"PSNR {found['psnr']:.1f} dB" if "psnr" in found else "the same pixels")
    if "ssim" in found:
        words.append(f"SSIM {found['ssim']:.3f}")
    if "peak_mb" in found:
        words.append(f"{found['peak_mb']:.0f} MB instead of {found['plain_peak_mb']:.0f} MB")
    return ", ".join(words)


def announcer(json: bool, quiet: bool, line: Callable[[dict[str, Any]], str]) -> Listener:
    """As ``emitter``, and a line on stderr for every result."""
    plain = emitter(json)

    def listen(event: dict[str, Any]) -> None:
        plain(event)
        if not json and not quiet and event["type"] == "item":
            say(line(event))

    return listen


def check_stdout(output: str | None, json: bool) -> None:
    """Raise UsageError when ``-o -`` would mix with JSON or fill a terminal with bytes."""
    if output != "-":
        return
    if json:
        raise UsageError("--json and -o - both write to standard output", "give only one of them")
    if sys.stdout.isatty():
        raise UsageError("-o -: standard output is a terminal", "redirect it to a file or a pipe")


@contextmanager
def report_errors(json: bool) -> Iterator[None]:
    """With ``--json``, an error of the request is an ``error`` and a ``done`` event too."""
    try:
        yield
    except DitError as error:
        if json:
            from dit_tools.tasks.generate.request import failure_events

            for event in failure_events(error):
                print_json(event)
        raise


def finish(outcome: Any, quiet: bool = False) -> int:
    """Name what failed on stderr and give the exit code.

    Raises the error itself when it is the only one.
    """
    code = outcome.exit_code
    if outcome.summary and not quiet:
        say(f"dit: {outcome.summary}")
    if outcome.skipped and not quiet:
        say(f"dit: {_images(outcome.skipped)} skipped: finished before, or the file exists")
    reasons: dict[str, list[str]] = {}
    for name, error in outcome.failed:
        reasons.setdefault(str(error), []).append(name)
    if len(reasons) == 1 and code not in (ExitCode.PARTIAL, ExitCode.INTERRUPTED):
        raise outcome.failed[0][1]
    for reason, names in reasons.items():
        unsaid = [name for name in names if name not in reason]
        listed = ", ".join(unsaid[:MOST_NAMES]) + (", ..." if len(unsaid) > MOST_NAMES else "")
        say(f"dit: {_images(len(names))} failed: {reason}{': ' if listed else ''}{listed}")
    if outcome.interrupted:
        say(f"dit: stopped after {_images(len(outcome.written))}; run the same command again to continue")
    return int(code) or outcome.verdict


def _images(count: int) -> str:
    return f"{count} image" + ("" if count == 1 else "s")


def show_plan(run: Any, json: bool) -> None:
    """Print the plan of ``--dry-run``: events, or one line per image and a summary on stderr."""
    from dit_tools.tasks.generate.request import plan_events

    events = plan_events(run)
    for event in events:
        if json:
            print_json(event)
        else:
            print(_plan_line(event))
    if not json:
        made = sum(event["type"] == "item" for event in events)
        say(f"dit: {_images(made)} to make, {len(events) - made} already done")


def _plan_line(event: dict[str, Any]) -> str:
    if event["type"] == "skip":
        return f"{event['path']}\tskip: {event['reason']}"
    given = {k: v for k, v in event["settings"].items() if v not in ("auto", "none", "", [])}
    facts = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in given.items())
    return f"{event['path']}\t{json_module.dumps(event['prompt'], ensure_ascii=False)}\t{facts}"
