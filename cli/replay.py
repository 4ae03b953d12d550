"""``dit replay``: pictures made again from their own records, and compared with themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from dit_cli import _options as o
from dit_cli._app import command as make

Pictures = Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Pictures with a dit record.")]
Check = Annotated[
    bool, typer.Option("--check", rich_help_panel=o.RUN, help="Compare with the picture; write only with -o.")
]
MinPsnr = Annotated[
    float | None,
    typer.Option(
        "--min-psnr", metavar="DB", rich_help_panel=o.RUN, min=0, help="With --check: what counts as the same."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Even with another revision of the model.", rich_help_panel=o.RUN)]


def replay(
    pictures: Pictures,
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
    """Make a picture again from its own record.

    Writes NAME-replay.png beside where you are, or what -o says. With --check the new pixels are
    compared with the picture: exit status 0 when they are identical (or as near as --min-psnr asks
    for), 1 when they differ. A picture of another revision of the model is refused with exit
    status 5, unless --force is given. Options replace what the record says.
    """
    given = locals()
    from dit_cli import _output
    from dit_tools.core.errors import UsageError
    from dit_tools.jobs.options import OPTIONS
    from dit_tools.tasks.replay import Replay, read_original

    asked = {**given, "min_psnr": None}  # here it is for --check, not for tuning
    changes = {name: asked[name] for name in OPTIONS if asked.get(name) not in (None, (), [])}
    with _output.told(json):
        _output.check_stdout(output, json)
        if min_psnr is not None and not check:
            raise UsageError("--min-psnr is for --check", "add --check")
        originals = [read_original(path, changes, i) for i, path in enumerate(pictures)]
        run = Replay(originals, output, overwrite, check, min_psnr, force, quiet)
        run.prepare()
    outcome = run.start(_output.emitter(json, verbose))
    if not json and not quiet:
        for line in run.verdicts:
            _output.say(f"dit: {line}")
    return _output.finish(outcome, quiet) or run.differs


command = make(replay)
