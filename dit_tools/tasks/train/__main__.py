"""Run a recipe: ``python -m dit_tools.tasks.train RECIPE``, resuming where an earlier run stopped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dit_tools.tasks.train import recipe as recipes


def main() -> None:
    """Parse the command line and run the stages in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--stage", choices=["autoencoder", "all"], default="all")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    recipe = recipes.load(arguments.recipe)

    from dit_tools.tasks.train.run import run
    from dit_tools.tasks.train.session import Session

    session = Session(
        arguments.runs / recipe.name,
        compiling=not arguments.no_compile,
        tell=lambda event: print(json.dumps(event), flush=True),
    )
    run(recipe, session, arguments.recipe, arguments.stage)


if __name__ == "__main__":
    main()
