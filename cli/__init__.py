"""The ``dit`` command: one file per subcommand, loaded only when it is called.

A command is a plain function; ``command`` makes the Typer object that ``main`` looks for in the
module of that name. Every shared option is an alias in ``options``, every choice of a method one
in ``choices``; ``--debug`` and ``--help`` come by themselves. Whatever takes long to import is
imported in the function's body, never at the top. Results go to stdout, everything else to stderr.
A function raises ``DitError``, and returns an ``ExitCode`` when that is not 0::

    # cli/count.py, after adding "count": "one line of help" to COMMANDS in main.py
    from typing import Annotated
    import typer
    from dit_cli._app import command as make
    from dit_cli._options import Json

    def count(
        words: Annotated[list[str], typer.Argument(metavar="WORD...", help="what to count")],
        json: Json = False,
    ) -> None:
        \"\"\"Count words. The first line is what the man page is headed by.\"\"\"
        print(len(words))

    command = make(count)

Values are ``str``, ``int``, ``float``, ``bool`` or lists of them; paths are ``str``. An option that
is not given is None. Tests start the installed program with ``tests.support.program.dit``.

Helpers: ``_app`` (functions to commands), ``_options``, ``_method_options``, ``_errors`` (errors to one
line and an exit code), ``manpages``, ``reference`` and ``roff`` (``man/`` and ``docs/methods.md``).
"""

from __future__ import annotations


def program() -> None:
    """The installed ``dit``: signals are handled before anything else is imported."""
    from dit_tools.jobs.interrupt import arm

    arm()
    from dit_cli.main import main

    main()
