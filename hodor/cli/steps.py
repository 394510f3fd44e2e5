"""Verbs for the steps of the workflow: fetch prepare train segment score submit manifest tabulate claims render.

A step is named by its subject: `hodor train hodor-soft-coco --seed 1`. Its settings come from config/ and its files from
`hodor.paths`. The workflow passes a stamp instead (`--stamp`), so that a step uses the settings that its rule compared.
"""

import argparse
import importlib
import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.errors import HodorError
from hodor.locks import hold
from hodor.provenance import read_json, read_stamp, record_making, sha256_json, write_manifest


def add_parsers(verbs: argparse._SubParsersAction) -> None:
    """Add the parsers of the verbs. Their modules are imported when a verb runs, so that `--help` is fast."""
    fetch = _add(verbs, _fetch, "fetch", "Download the archives of data sets and weights, or generate them.")
    fetch.add_argument(
        "names", nargs="*", metavar="NAME", help="data set, `weights` or `all` (default: the scale's data)"
    )
    fetch.add_argument(
        "--mirror", metavar="PLACE", help="folder or URL with <data set>/<archive>, instead of the hosts"
    )
    fetch.add_argument("--wait", action="store_true", help="wait for archives that must be downloaded by hand")
    prepare = _add(verbs, _prepare, "prepare", "Extract the archives of a data set and check every file.")
    prepare.add_argument("dataset", nargs="?", metavar="DATASET", help="data set of the scale")
    prepare.add_argument("--archives", type=Path, metavar="DIR", help="default: data/<scale>/archives/<data set>")
    prepare.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: data/<scale>/<data set>)")
    prepare.add_argument("--manifest", type=Path, metavar="FILE", help="record to write (default: <out>.json)")
    train = _add(verbs, _train, "train", "Train one row with one seed, or resume its training.", row=True)
    train.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (default: data/<scale>)")
    train.add_argument(
        "--init", type=Path, metavar="FILE", help="starting weights (default: those of the row's `init`)"
    )
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/<scale>/<row>/seed<k>)")
    train.add_argument("--processes", type=int, default=1, metavar="N", help="workers, one GPU each (default: 1)")
    train.add_argument("--micro-batch", type=int, metavar="N", help="clips per forward pass (default: all that fit)")
    train.add_argument("--compile", action="store_true", help="use torch.compile (GPU)")
    train.add_argument("--deterministic", action="store_true", help="use deterministic operators only (GPU)")
    train.add_argument("--tensorboard", action="store_true", help="write event files to tensorboard/ of the run folder")
    segment = _add(verbs, _segment, "segment", "Segment a benchmark with a row, or import external masks.", row=True)
    segment.add_argument("benchmark", nargs="?", metavar="BENCHMARK", help="benchmark of the scale")
    segment.add_argument("--weights", type=Path, metavar="FILE", help="model.safetensors (default: that of the run)")
    segment.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (default: data/<scale>)")
    segment.add_argument("--out", type=Path, metavar="DIR", help="folder of masks/ (default: that of the run)")
    score = _add(verbs, _score, "score", "Score masks with the official protocol.", row=True)
    _add_masks(score, "default: all of --truth, as in DAVIS", "default: <pred>-scores")
    score.add_argument("--jobs", type=int, metavar="N", help="number of threads (default: all cores)")
    score.add_argument(
        "--official",
        action=BooleanOptionalAction,
        help="run the official DAVIS toolkit too, which must agree (default: if it is installed)",
    )
    submit = _add(verbs, _submit, "submit", "Check masks and pack them for the server of a benchmark.", row=True)
    _add_masks(submit, "needed with --pred", "default: not written")
    submit.add_argument(
        "--zip", type=Path, metavar="FILE", help="zip to write (default: in results/<scale>/submissions)"
    )
    manifest = _add(
        verbs, _manifest, "manifest", "Write manifest.json of a run: its settings, data and cost.", row=True
    )
    manifest.add_argument("--benchmarks", nargs="*", metavar="ID", help="scored benchmarks (default: all)")
    tabulate = _add(verbs, _tabulate, "tabulate", "Make a table of scores or costs.")
    tabulate.add_argument("table", metavar="TABLE", help="ablation, comparison, extended or costs")
    _add(verbs, _claims, "claims", "Give a verdict on each claim of the poster.")
    _add(verbs, _render, "render", "Make the report pages from tables and runs.")


def add_verb(verbs: argparse._SubParsersAction, command: Any, verb: str, about: str) -> ArgumentParser:
    """Add the parser of a verb. `command`: function of the parsed arguments; `about`: one sentence."""
    parser = verbs.add_parser(verb, help=about[0].lower() + about[1:-1], description=about)
    parser.set_defaults(command=command)
    return parser


def add_config(parser: ArgumentParser) -> None:
    """Add the option --config."""
    folder = paths.config()
    parser.add_argument("--config", type=Path, default=folder, metavar="DIR", help="configuration (default: config)")


def _add(verbs: Any, command: Any, verb: str, about: str, *, row: bool = False) -> ArgumentParser:
    parser = add_verb(verbs, command, verb, about)
    if row:
        parser.add_argument("row", nargs="?", metavar="ROW", help="id of config/rows.yaml")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the run (default: 0)")
    parser.add_argument("--scale", metavar="NAME", help="scale of config/scales (default: that of config.yaml)")
    add_config(parser)
    parser.add_argument("--stamp", type=Path, help=argparse.SUPPRESS)  # for the workflow
    return parser


def _add_masks(parser: ArgumentParser, benchmark: str, out: str) -> None:
    """Add the options of masks of any origin. `benchmark`, `out`: what holds without the option."""
    parser.add_argument("at", nargs="?", metavar="BENCHMARK", help="benchmark of the scale")
    masks = parser.add_argument_group("masks of any origin", "instead of ROW and BENCHMARK")
    masks.add_argument("--pred", type=Path, metavar="DIR", help="folder or archive of <sequence>/<frame>.png")
    masks.add_argument("--truth", type=Path, metavar="DIR", help="folder of the data set")
    masks.add_argument("--benchmark", metavar="ID", help=f"benchmark ({benchmark})")
    masks.add_argument("--out", type=Path, metavar="DIR", help=f"folder for the scores ({out})")


def _settings(options: Namespace, step: str, subject: str = "", run: str = "", **overrides: Any) -> dict[str, Any]:
    """Return the stamp of a step, from --stamp or from the configuration.

    Args:
        step: kind of step.
        subject: what the step is about: a data set, table or benchmark. Empty: a run, or nothing.
        run: `<row>-seed<k>`, of a step of a run.
        overrides: keys of config.yaml with which the configuration has the stamp.
    """
    if options.stamp is not None:
        stamp = read_stamp(options.stamp)
        if stamp["step"] != step:
            raise HodorError(f"{options.stamp}: is a stamp of the step {stamp['step']}; give one of {step}")
        if own := stamp["settings"].get("own"):
            _entry("config.own_datasets", "declare")(own)
    else:
        from hodor.config.loading import load
        from hodor.config.validation import none_of
        from hodor.stamps import Stamps

        given = {"scale": options.scale, **overrides}
        config = load(options.config, {key: value for key, value in given.items() if value is not None})
        if row := overrides.get("rows"):
            if row not in config.rows:  # `main`, a table
                raise HodorError(none_of(row, list(config.rows)))
            config.require(row)
        stamps = Stamps(config, options.config.resolve().parent).contents
        name = "-".join(filter(None, ("score" if step == "submit" else step, run, subject)))
        if name not in stamps:
            start = name.removesuffix(subject)
            known = [known.removeprefix(start) for known in stamps if known.startswith(start)]
            raise HodorError(f"scale {config.scale.name}: {none_of(subject or step, known)}")
        stamp = stamps[name] | {"sha256": sha256_json(stamps[name])}
    hold()
    return stamp


def _of_run(options: Namespace, step: str, benchmark: str = "") -> dict[str, Any]:
    """Return the stamp of a step of one run; set `options.row` and `options.seed` to those of the run."""
    run = f"{options.row}-seed{options.seed}"
    stamp = _settings(options, step, benchmark, run, rows=options.row, seeds=[options.seed])
    options.row, options.seed = stamp.get("row", options.row), stamp.get("seed", options.seed)
    return stamp


def _require_names(options: Namespace, example: str, **names: str | None) -> None:
    """Raise HodorError if the command line names neither a stamp nor all subjects. `example`: a complete command."""
    missing = [name for name, value in names.items() if value is None]
    if options.stamp is None and missing:
        raise HodorError(f"{' and '.join(missing)} missing; for example: hodor {options.verb} {example}")


def _entry(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"hodor.{module}"), name)


def _fetch(options: Namespace) -> None:
    if options.stamp is None:
        _entry("cli.fetch", "fetch_command")(
            options.names, options.config, options.scale, options.mirror, wait=options.wait
        )
        return
    stamp = _settings(options, "fetch")
    # The mirror is in no stamp, because it changes no archive.
    stamp["settings"]["mirror"] = options.mirror or os.environ.get("HODOR_MIRROR") or None
    edition = stamp["settings"].get("edition")
    lock = paths.locks(edition) if edition in ("official", "subset", "own") else None
    out = paths.archives(stamp["scale"], stamp["settings"]["dataset"])
    _entry("data.fetch", "fetch")(stamp, out, lock)
    record_making(out / "provenance.json")


def _prepare(options: Namespace) -> None:
    from hodor.config.datasets import WEIGHT_SETS

    _require_names(options, "davis", DATASET=options.dataset)
    stamp = _settings(options, "prepare", options.dataset)
    scale, dataset = stamp["scale"], stamp["settings"]["dataset"]
    weights = dataset in WEIGHT_SETS
    module, name = ("models.checkpoints.load", "prepare_weights") if weights else ("data.prepare", "prepare")
    archives = options.archives or paths.archives(scale, dataset)
    out = options.out.absolute() if options.out else paths.dataset(scale, dataset)
    manifest = options.manifest or out.with_name(f"{out.name}.json")
    if options.out and not (manifest.is_file() and read_json(manifest).get("dataset") == dataset):
        occupied = out.is_file() or out.is_dir() and any(out.iterdir())
        if occupied or manifest.exists():
            taken = out if occupied else manifest
            raise HodorError(f"{taken}: exists and would be replaced; give a folder that is absent or empty")
    _entry(module, name)(stamp, archives, out, manifest)
    record_making(manifest.with_suffix(".provenance.json"))


def _train(options: Namespace) -> None:
    _require_names(options, "hodor-soft-coco", ROW=options.row)
    stamp = _of_run(options, "train")
    settings, scale = stamp["settings"], stamp["scale"]
    out = options.out or paths.run(scale, options.row, options.seed)
    if settings.get("weights"):
        _import_release(stamp, out, options.config)
        return
    record = out / "train.json"
    if options.out and record.is_file() and read_json(record).get("stamp") != stamp["sha256"]:
        raise HodorError(f"{record}: of another training, which would be replaced; delete it or give another folder")
    if options.init and not settings.get("init"):
        raise HodorError(f"--init: row {stamp['row']} starts from no other row; give it `init` in config/rows.yaml")
    data = options.data or paths.data(scale)
    for dataset in settings["datasets"]:
        _require_data(data / dataset)
    _limit_threads(stamp)
    execution = _entry("config.execution", "Execution").of_arguments(options)
    if "RANK" in os.environ:  # a worker that `launch` or torchrun started
        _entry("training.distributed", "end_with_launcher")()
    else:
        _choose_gpus(stamp, execution.processes)
        if execution.processes > 1:
            sys.exit(_entry("training.distributed", "launch")(execution.processes, options.given))
    init = options.init
    if init is None and settings.get("init"):
        init = paths.run(scale, settings["init"]["row"], options.seed) / "model.safetensors"
    _entry("training.trainer", "train")(stamp, data, out, init, execution)


def _import_release(stamp: dict[str, Any], out: Path, config: Path) -> None:
    """Convert the released weights of a row to its run folder."""
    from hodor.config.loading import load

    loaded, row = load(config, {"rows": "all"}), stamp["row"]
    loaded.require(row)
    _entry("models.checkpoints.load", "import_release")(stamp, loaded.checkpoints[row], out)


def _segment(options: Namespace) -> None:
    _require_names(options, "hodor-soft-coco davis2017-val", ROW=options.row, BENCHMARK=options.benchmark)
    stamp = _of_run(options, "segment", options.benchmark)
    settings, scale = stamp["settings"], stamp["scale"]
    data = options.data or paths.data(scale)
    _require_data(data / settings["benchmark"]["dataset"])
    out = options.out or paths.prediction(scale, options.row, options.seed, settings["benchmark"]["id"])
    if settings.get("masks"):
        _entry("scoring.external", "import_masks")(stamp, data, out)
        return
    _limit_threads(stamp)
    _choose_gpus(stamp)
    weights = options.weights or paths.run(scale, options.row, options.seed) / "model.safetensors"
    _entry("inference.segment", "segment")(stamp, weights, data, out)


def _score(options: Namespace) -> None:
    stamp, pred, truth, benchmark, out = _masks(options, "score")
    _entry("scoring.score", "score")(pred, truth, benchmark, out, stamp, options.official, options.jobs)


def _submit(options: Namespace) -> None:
    stamp, pred, truth, benchmark, out = _masks(options, "submit")
    target = options.zip
    if target is None:
        if stamp is None or benchmark is None:
            raise HodorError("--zip is needed with --pred: the file to write")
        target = paths.submission(stamp["scale"], options.row, options.seed, benchmark)
    digest = _entry("scoring.score", "submit")(pred, truth, benchmark, target, out, stamp)
    print(f"{target}: sha256 {digest}", file=sys.stderr)


def _masks(options: Namespace, step: str) -> tuple[dict[str, Any] | None, Path, Path, str | None, Path | None]:
    """Return stamp (None for masks of any origin), masks, data set, benchmark and folder for the scores."""
    if options.pred is not None:
        needed = ("truth",) if step == "score" else ("truth", "benchmark")
        if missing := [f"--{name}" for name in needed if getattr(options, name) is None]:
            raise HodorError(f"{', '.join(missing)} missing; --pred needs --{' --'.join(needed)}")
        _entry("config.own_datasets", "load_own")(options.config)
        out = options.out or (Path(f"{options.pred.resolve().name}-scores") if step == "score" else None)
        return None, options.pred, options.truth, options.benchmark, out
    example = f"hodor-soft-coco davis2017-{'val' if step == 'score' else 'test-dev'}"
    example += ", or masks of any origin: --pred DIR --truth DIR --benchmark ID"
    _require_names(options, example, ROW=options.row, BENCHMARK=options.at)
    stamp = _settings(options, step, options.at, rows=options.row, seeds=[options.seed])
    scale, dataset = stamp["scale"], stamp["settings"]["benchmark"]["dataset"]
    _require_data(paths.dataset(scale, dataset))
    out = paths.prediction(scale, options.row, options.seed, options.at)
    return stamp, out / "masks", paths.dataset(scale, dataset), options.at, out


def _manifest(options: Namespace) -> None:
    _require_names(options, "hodor-soft-coco --seed 1", ROW=options.row)
    scale, benchmarks = options.scale, options.benchmarks
    if scale is None:
        from hodor.config.loading import load

        config = load(options.config, {"rows": options.row})
        scale = config.scale.name
        benchmarks = config.benchmarks(options.row) if benchmarks is None else benchmarks
    write_manifest(paths.run(scale, options.row, options.seed), options.row, options.seed, benchmarks)


def _tabulate(options: Namespace) -> None:
    stamp = _settings(options, "tabulate", options.table)
    results = paths.results(stamp["scale"])
    files = _entry("reporting.tables", "tabulate")(stamp, paths.runs(stamp["scale"]), results)
    record_making(results / f"{options.table}.provenance.json", files)


def _claims(options: Namespace) -> None:
    stamp = _settings(options, "claims")
    results = paths.results(stamp["scale"])
    files = _entry("reporting.claims", "claims")(stamp, paths.runs(stamp["scale"]), results)
    record_making(results / "claims.provenance.json", files)


def _render(options: Namespace) -> None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "workflow" / "notebooks").is_dir():
        raise HodorError(f"{root}: not a checkout of the repository, whose notebooks make the report; run it in one")
    stamp = _settings(options, "render")
    folders = (folder(stamp["scale"]) for folder in (paths.results, paths.runs, paths.data, paths.reports))
    files = _entry("reporting.site", "render")(stamp, *folders)
    record_making(paths.reports(stamp["scale"]) / "pages.provenance.json", files)


def _require_data(folder: Path) -> None:
    """Raise HodorError for an absent data set, which may have been deleted to save space."""
    if not folder.is_dir():
        raise HodorError(
            f"{folder}: no such data set; make it from its archives: snakemake --cores 1 --force -- {folder}.json"
        )


def _choose_gpus(stamp: dict[str, Any], count: int = 1) -> None:
    """Lock free GPUs before torch looks for any."""
    if stamp["settings"].get("device") == "cuda":
        _entry("gpus", "take")(count)


def _limit_threads(stamp: dict[str, Any]) -> None:
    """Set the threads of the numerical libraries before they load.

    Snakemake would set them to the cores of the job, but numbers depend on them.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(stamp["settings"]["threads"])
