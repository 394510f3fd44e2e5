"""`make golden`: write the golden values of recipes whose version was raised, and of new ones; delete stale files."""

import argparse
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from hodor.config.recipes import RECIPES
from tests.golden import files
from tests.golden.compute import Golden


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("recipes", nargs="*", help="recipes to look at (all)")
    parser.add_argument("--force", action="store_true", help="write under an unchanged version: the inputs changed")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        golden = Golden(Path(folder))
        for recipe in arguments.recipes or RECIPES:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                values = golden.compute(recipe)
            try:
                done = files.write(recipe, values, arguments.force)
            except AssertionError as error:
                failed, done = True, str(error)
            if done:
                print(done, flush=True)
    for name in files.stale():
        (files.FOLDER / name).unlink()
        print(f"{name}: deleted, it belongs to no recipe")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
