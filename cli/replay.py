"""``dit replay``: images made again from their own records and compared with the originals."""

from __future__ import annotations

from typing import Annotated

import typer

from dit_cli import _options as o
from dit_cli._app import command as make

Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images with a dit record.")]
Check = Annotated[
    bool, typer.Option("--check", rich_help_panel=o.RUN, help="Compare with the original; write an image only with -o.")
]
MinPsnr = Annotated[
    float | None,
    typer.Option(
        "--min-psnr",
        metavar="DB",
        rich_help_panel=o.RUN,
        min=0,
        help="With --check: PSNR from which images count as the same (default: identical pixels).",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Continue when the model has another revision than the record.", rich_help_panel=o.RUN
    ),
]


def replay(
    pictures: Images,
    model: o.Model = None,
    lora: o.Lora = None,
    allow_pickle: o.AllowPickle = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    backend: o.Backend = None,
    offload: o.Offload = None,
    output: o.Output = None,
    format: o.Format = None,  # noqa: A002
    overwrite: o.Overwrite = False,
    check: Check = False,
    min_psnr: MinPsnr = None,
    force: Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> int:
    """Make an image again from its own record.

    Writes NAME-replay.png to the current folder, or to the path that -o gives. With --check the
    new pixels are compared with the original: the exit status is 0 when they are identical (or
    within --min-psnr) and 1 when they differ. An image made with another revision of the model is
    refused with exit status 5 unless --force is given. Options override the values in the record.
    """
    given = locals()
    from dit_cli import _output
    from dit_tools.core.errors import UsageError
    from dit_tools.jobs.options import OPTIONS
    from dit_tools.tasks.replay import Replay, read_original

    asked = {**given, "min_psnr": None}  # here it is for --check, not for tuning
    changes = {name: asked[name] for name in OPTIONS if asked.get(name) not in (None, (), [])}
    with _output.report_errors(json):
        _output.check_stdout(output, json)
        if min_psnr is not None and not check:
            raise UsageError("--min-psnr needs --check", "add --check")
        originals = [read_original(path, changes, i) for i, path in enumerate(pictures)]
        run = Replay(originals, output, overwrite, check, min_psnr, force, quiet)
        run.prepare()
    outcome = run.start(_output.emitter(json, verbose))
    if not json and not quiet:
        for line in run.verdicts:
            _output.say(f"dit: {line}")
    return _output.finish(outcome, quiet)


command = make(replay)
