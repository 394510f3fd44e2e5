"""The command line: `hodor VERB ...`, one verb for each step of the workflow.

    fetch prepare pack train segment score submit manifest tabulate claims render released

A step takes its settings from a stamp, which the workflow writes; `fetch`, `score` and `submit` also work without. Modules are
imported when their verb is called, so that each verb starts fast. Verbs for people are in `hodor.cli.commands`.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hodor import __version__, paths
from hodor.cli.commands import add_execution_arguments, add_fetch_arguments, add_parsers, fetch_named
from hodor.config.datasets import WEIGHT_SETS
from hodor.errors import HodorError, Stopped, place_error
from hodor.locks import hold
from hodor.provenance import read_stamp

_VERBS: dict[str, tuple[str, dict[str, str]]] = {
    "fetch": (
        "get a data set's archives, or generate them",
        {"out?": "folder for the archives and for archives.json, which lists them"},
    ),
    "prepare": (
        "extract and check archives",
        {
            "archives": "their folder",
            "out": "folder for the data set",
            "manifest": "JSON file with its checksums",
        },
    ),
    "pack": (
        "pack a split of a data set into few files for training",
        {
            "data": "folder of the data sets",
            "out": "folder for the pack",
            "manifest": "JSON file with its checksums",
        },
    ),
    "train": (
        "train a row; a run that was interrupted goes on",
        {"data": "folder of the data sets", "out": "run folder", "init?": "weights to start from"},
    ),
    "segment": (
        "segment the videos of a benchmark with a trained row",
        {
            "weights": "model.safetensors",
            "data": "folder of the data sets",
            "out": "folder for masks/ and masks.json",
        },
    ),
    "score": (
        "score masks: J and F by the official protocol",
        {
            "pred": "folder that holds <sequence>/<frame>.png",
            "truth": "folder of the benchmark's data set",
            "benchmark": "benchmark id",
            "out": "folder for the scores",
        },
    ),
    "submit": (
        "check masks and pack them for the server that has the truth",
        {
            "pred": "folder that holds <sequence>/<frame>.png",
            "truth": "folder of the benchmark's data set",
            "benchmark": "benchmark id",
            "zip": "file to write",
            "out?": "folder for score.json, which names the zip",
        },
    ),
    "manifest": (
        "gather what is known of a run into its manifest.json",
        {"run": "run folder", "benchmark+": "benchmark ids"},
    ),
    "tabulate": (
        "make a table from the scores of its rows",
        {"runs": "folder of the scale's runs", "out": "folder for the table"},
    ),
    "claims": (
        "give each claim of the poster a verdict",
        {"runs": "folder of the scale's runs", "out": "folder for claims.json and claims.md"},
    ),
    "render": (
        "make the report pages from tables and runs",
        {
            "results": "folder of the tables",
            "runs": "folder of the scale's runs",
            "data": "folder of the data sets",
            "out": "folder for the pages",
        },
    ),
    "released": (
        "turn an authors' checkpoint into a run, to be scored like a row",
        {"checkpoint": "the file, as released", "out": "run folder"},
    ),
}

# What torchrun needs, in seconds, to end all processes of a training after one of them.
_OTHERS_S = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit status: 0, or 1 after an error that the user can mend (2: wrong usage, 143: stopped)."""
    options = _parser().parse_args(arguments)
    options.given = list(sys.argv[1:] if arguments is None else map(str, arguments))
    try:
        _run(options)
    except Stopped as stop:
        print(f"hodor {options.verb}: {stop}", file=sys.stderr)
        return stop.status
    except HodorError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_OTHERS_S)  # the first process says the same, if it has the same fault, and this one is ended
        print(f"hodor {options.verb}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        message = place_error(error)
        if message is None:
            raise
        print(f"hodor {options.verb}: error: {message}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "hodor").partition(".")[0] == "hodor":
            raise
        mend = "install the packages of this project: make install, or pip install . in its folder"
        print(f"hodor {options.verb}: error: Python module {error.name} is not installed; {mend}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"hodor {options.verb}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hodor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"hodor {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (about, flags) in _VERBS.items():
        command = verbs.add_parser(verb, help=about, description=about[0].upper() + about[1:] + ".")
        stamp_help = "the step's settings, a file that the workflow writes"
        if verb != "manifest":
            needed = verb not in ("fetch", "score", "submit")
            command.add_argument("--stamp", type=Path, required=needed, help=stamp_help)
        for flag, help in flags.items():
            kind = str if flag.startswith("benchmark") else Path
            count = "+" if flag.endswith("+") else None
            required = not flag.endswith("?")
            command.add_argument(f"--{flag.rstrip('?+')}", type=kind, nargs=count, required=required, help=help)
        if verb in ("score", "pack"):
            command.add_argument("--jobs", type=int, help="processes (all cores if absent)")
        if verb == "score":
            command.add_argument(
                "--official",
                action=argparse.BooleanOptionalAction,
                help="the official DAVIS toolkit too, which must agree (where it is installed, if absent)",
            )
        if verb == "fetch":
            add_fetch_arguments(command)
        if verb == "train":
            add_execution_arguments(command)
    add_parsers(verbs)
    return parser


def _run(options: argparse.Namespace) -> None:
    if hasattr(options, "command"):
        options.command(options)
        return
    stamp = read_stamp(options.stamp) if getattr(options, "stamp", None) else None
    if stamp is not None:
        if stamp["step"] != options.verb:
            raise HodorError(f"{options.stamp}: is a stamp of the step {stamp['step']}")
        hold()
    _STEPS[options.verb](options, stamp)


def _entry(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"hodor.{module}"), name)


def _fetch(options: argparse.Namespace, stamp: dict[str, Any] | None) -> None:
    if stamp is None:
        fetch_named(options)
        return
    if options.out is None:
        raise HodorError("--out is needed with --stamp")
    # The mirror says where to look, not what is wanted: it is no part of the stamp.
    stamp["settings"]["mirror"] = os.environ.get("HODOR_MIRROR") or None
    edition = stamp["settings"].get("edition")
    lock = paths.locks(edition) if edition in ("official", "subset") else None
    _entry("data.fetch", "fetch")(stamp, options.out, lock)


def _prepare(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    weights = stamp["settings"].get("dataset") in WEIGHT_SETS
    module, name = ("models.original.prepare", "prepare_weights") if weights else ("data.prepare", "prepare")
    _entry(module, name)(stamp, options.archives, options.out, options.manifest)


def _pack(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    _require_data(options.data / stamp["settings"]["dataset"])
    jobs = options.jobs or len(os.sched_getaffinity(0))
    _entry("data.packing", "pack")(stamp, options.data, options.out, options.manifest, jobs=jobs)


def _train(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    for dataset in stamp["settings"]["datasets"]:
        _require_data(options.data / dataset)
    for name in stamp["settings"].get("packs", ()):
        _require_data(options.data / "packed" / name)
    _limit_threads(stamp)
    execution = _entry("config.execution", "Execution").of_arguments(options)
    if execution.processes > 1 and "RANK" not in os.environ:  # torchrun sets it in the processes that it starts
        sys.exit(_entry("training.launch", "launch")(execution.processes, options.given))
    _choose_gpu(stamp)
    data = options.data
    if scratch := os.environ.get("HODOR_SCRATCH"):  # where to read from, not what is read: no part of the stamp
        data = _entry("data.scratch", "staged")(data, stamp["settings"].get("packs", ()), scratch)
    _entry("training.run", "train")(stamp, data, options.out, options.init, execution)


def _segment(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    _require_data(options.data / stamp["settings"]["benchmark"]["dataset"])
    _limit_threads(stamp)
    _choose_gpu(stamp)
    _entry("inference.segment", "segment")(stamp, options.weights, options.data, options.out)


def _score(options: argparse.Namespace, stamp: dict[str, Any] | None) -> None:
    if stamp is not None:
        _require_data(options.truth)
    score = _entry("scoring.score", "score")
    score(options.pred, options.truth, options.benchmark, options.out, stamp, options.official, options.jobs)


def _submit(options: argparse.Namespace, stamp: dict[str, Any] | None) -> None:
    if stamp is not None:
        _require_data(options.truth)
    pack = _entry("scoring.submit", "submit")
    digest = pack(options.pred, options.truth, options.benchmark, options.zip, options.out, stamp)
    print(f"{options.zip}: sha256 {digest}", file=sys.stderr)


def _manifest(options: argparse.Namespace, stamp: None) -> None:
    run = _entry("reporting.runs", "read_run")(options.run, options.benchmark)
    _entry("reporting.runs", "merge_manifest")(run)


def _tabulate(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    module = "reporting.released" if stamp["settings"].get("table") == "released" else "reporting.tables"
    _entry(module, "tabulate")(stamp, options.runs, options.out)


def _claims(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    _entry("reporting.claims", "claims")(stamp, options.runs, options.out)


def _render(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    _entry("reporting.render", "render")(stamp, options.results, options.runs, options.data, options.out)


def _released(options: argparse.Namespace, stamp: dict[str, Any]) -> None:
    _entry("models.original.released", "adopt")(stamp, options.checkpoint, options.out)


def _require_data(folder: Path) -> None:
    """An extracted data set may be deleted to save room: its manifest stays, and nothing that is done needs it."""
    if not folder.is_dir():
        raise HodorError(
            f"{folder}: the folder of this data set is missing; bring it back from its archives with: "
            f"snakemake --cores 1 --force -- {folder}.json"
        )


def _choose_gpu(stamp: dict[str, Any]) -> None:
    """Takes GPUs that no other job has, before torch looks for any."""
    if stamp["settings"].get("device") == "cuda":
        _entry("gpus", "take")()


def _limit_threads(stamp: dict[str, Any]) -> None:
    """Sets the threads of the number libraries before they load.

    Snakemake sets them to what `--cores` leaves, and the same job would give other numbers with fewer cores.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(stamp["settings"]["threads"])


_STEPS = {
    "fetch": _fetch,
    "prepare": _prepare,
    "pack": _pack,
    "train": _train,
    "segment": _segment,
    "score": _score,
    "submit": _submit,
    "manifest": _manifest,
    "tabulate": _tabulate,
    "claims": _claims,
    "render": _render,
    "released": _released,
}
