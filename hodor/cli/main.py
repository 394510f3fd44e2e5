"""The command line `hodor VERB`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from hodor import __version__
from hodor.cli import steps, tools
from hodor.errors import HodorError, Stopped, place_error

# Seconds in which torchrun stops the other workers after one has failed.
_OTHERS_S = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0; 1 after an error that the user can fix; 2 for wrong usage; 130 or 143 if stopped by a signal, 141
        if the reader of its output has stopped.
    """
    options = _parser().parse_args(arguments)
    options.given = list(sys.argv[1:] if arguments is None else map(str, arguments))
    try:
        options.command(options)
        sys.stdout.flush()
        return 0
    except Stopped as stop:
        print(f"hodor {options.verb}: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print(f"hodor {options.verb}: interrupted", file=sys.stderr)
        return 130
    except HodorError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_OTHERS_S)  # the first worker reports the same error, and torchrun stops this one
        message: str | None = str(error)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if (message := place_error(error)) is None:
            raise
    except ModuleNotFoundError as error:
        if (error.name or "hodor").partition(".")[0] == "hodor":
            raise
        extra = {"track": "track", "convert": "track", "export": "pipeline,export"}.get(options.verb, "pipeline")
        message = (
            f"Python module {error.name} is not installed; run pip install 'hodor-repro[{extra}]', or make install in a "
            "checkout"
        )
    print(f"hodor {options.verb}: error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hodor",
        description="Train, run and evaluate differentiable soft-masked attention, HODOR and baselines.",
        epilog="`hodor VERB --help` shows the options of a verb.",
    )
    parser.add_argument("--version", action="version", version=f"hodor {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    steps.add_parsers(verbs)
    tools.add_parsers(verbs)
    return parser
