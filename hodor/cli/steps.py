"""Verbs for the steps of the workflow: fetch prepare pack train segment score submit manifest tabulate claims render.

A step is named by what it is about: `hodor train hodor-soft-coco --seed 1`. It resolves its settings from config/ and
its files from `hodor.paths`. The workflow hands over the settings of the whole experiment as a stamp instead
(`--stamp`), so that a step never uses settings that its rule was not compared with.
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
from hodor.provenance import read_stamp, record_making, sha256_json


def add_parsers(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs; each sets `command`, a function of the parsed arguments. Modules are imported when called."""
    fetch = _add(verbs, _fetch, "fetch", "Download a data set's archives, or generate them.")
    fetch.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="data sets of config/datasets.csv, `weights` or `all`; default: the scale's",
    )
    fetch.add_argument("--mirror", help="folder or address with <data set>/<archive>, instead of every host")
    fetch.add_argument("--wait", action="store_true", help="wait for archives that must be downloaded by hand")
    prepare = _add(verbs, _prepare, "prepare", "Extract a data set's archives and check every file.")
    prepare.add_argument("dataset", nargs="?", metavar="DATASET", help="a data set of the scale")
    prepare.add_argument("--archives", type=Path, metavar="DIR", help="default: data/<scale>/archives/<data set>")
    prepare.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: data/<scale>/<data set>)")
    prepare.add_argument("--manifest", type=Path, metavar="FILE", help="its record (default: <out>.json)")
    pack = _add(verbs, _pack, "pack", "Pack a split of a data set into few files of decoded pixels for training.")
    pack.add_argument("pack", metavar="PACK", help="name of the pack, such as coco-train2017-whole")
    pack.add_argument("--jobs", type=int, help="processes (default: all cores)")
    train = _add(verbs, _train, "train", "Train one row with one seed; an interrupted run continues.", row=True)
    train.add_argument("--data", type=Path, help="folder of the prepared data sets (default: data/<scale>)")
    train.add_argument("--init", type=Path, help="weights to start from (default: those of the row that `init` names)")
    train.add_argument("--out", type=Path, help="run folder (default: runs/<scale>/<row>/seed<k>)")
    add_execution(train)
    segment = _add(verbs, _segment, "segment", "Segment the sequences of a benchmark with a trained row.", row=True)
    segment.add_argument("benchmark", nargs="?", metavar="BENCHMARK", help="a benchmark of the scale")
    segment.add_argument("--weights", type=Path, help="model.safetensors (default: that of the run)")
    segment.add_argument("--data", type=Path, help="folder of the prepared data sets (default: data/<scale>)")
    segment.add_argument("--out", type=Path, help="folder for masks/ (default: that of the run and benchmark)")
    score = _add(verbs, _score, "score", "Score masks: J and F by the official protocol.", row=True)
    _add_masks(score)
    score.add_argument("--jobs", type=int, help="threads (default: all cores)")
    score.add_argument(
        "--official",
        action=BooleanOptionalAction,
        help="run the official DAVIS toolkit too, which must agree (default: where it is installed)",
    )
    submit = _add(
        verbs, _submit, "submit", "Check masks and pack them into the zip that a benchmark's server expects.", row=True
    )
    _add_masks(submit)
    submit.add_argument("--zip", type=Path, help="file to write (default: in results/<scale>/submissions)")
    manifest = _add(
        verbs, _manifest, "manifest", "Write what a run was made of and made with to its manifest.json.", row=True
    )
    manifest.add_argument("--benchmarks", nargs="*", metavar="ID", help="those it was scored on (default: all)")
    tabulate = _add(verbs, _tabulate, "tabulate", "Make a table from the scores of its rows.")
    tabulate.add_argument("table", metavar="TABLE", help="ablation, comparison, extended or costs")
    _add(verbs, _claims, "claims", "Give each claim of the poster a verdict.")
    _add(verbs, _render, "render", "Make the report pages from tables and runs.")


def _add(
    verbs: argparse._SubParsersAction, command: Any, verb: str, about: str, *, row: bool = False
) -> ArgumentParser:
    parser = verbs.add_parser(verb, help=about[0].lower() + about[1:-1], description=about)
    if row:
        parser.add_argument("row", nargs="?", metavar="ROW", help="an id of config/rows.yaml")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the run (default: 0)")
    parser.add_argument("--scale", help="a file of config/scales, without its ending (default: that of config.yaml)")
    parser.add_argument(
        "--config",
        type=Path,
        default=paths.config(),
        metavar="DIR",
        help="folder of the configuration (default: config)",
    )
    parser.add_argument("--stamp", type=Path, help=argparse.SUPPRESS)  # for the workflow
    parser.set_defaults(command=command)
    return parser


def _add_masks(parser: ArgumentParser) -> None:
    parser.add_argument("at", nargs="?", metavar="BENCHMARK", help="a benchmark of the scale")
    parser.add_argument("--pred", type=Path, metavar="DIR", help="instead of ROW: <sequence>/<frame>.png of any origin")
    parser.add_argument("--truth", type=Path, metavar="DIR", help="with --pred: folder of the benchmark's data set")
    parser.add_argument("--benchmark", help="with --pred: benchmark id")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --pred: folder for the scores")


def add_execution(parser: ArgumentParser) -> None:
    """Fields of `hodor.config.execution.Execution`: how a training is executed, which changes no result."""
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="data-parallel workers, on a GPU each")
    parser.add_argument(
        "--micro-batch", type=int, metavar="N", help="clips that a worker computes at a time (default: its part)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile for the layers that gain by it (GPU)")
    parser.add_argument("--deterministic", action="store_true", help="deterministic operators only, on a GPU")


def _settings(options: Namespace, step: str, name: str | None, **overrides: Any) -> dict[str, Any]:
    """The stamp of a step: from --stamp, or resolved from the configuration.

    Args:
        step: what the stamp must be of.
        name: of the stamp; None: only --stamp names it.
        overrides: keys of config.yaml, so that the stamp is among those of the configuration.
    """
    if options.stamp is not None:
        stamp = read_stamp(options.stamp)
        if stamp["step"] != step:
            raise HodorError(f"{options.stamp}: is a stamp of the step {stamp['step']}, not of {step}")
    else:
        from hodor.config.loading import load
        from hodor.config.reading import none_of
        from hodor.stamps import Stamps

        given = {"scale": options.scale, **overrides}
        config = load(options.config, {key: value for key, value in given.items() if value is not None})
        entry = config.rows.get(overrides.get("rows", ""))
        if entry and entry.weights and overrides["rows"] not in config.checkpoints:
            raise _absent(entry.weights)
        stamps = Stamps(config, options.config.resolve().parent).contents
        if name not in stamps:
            known = [known.removeprefix(f"{step}-") for known, stamp in stamps.items() if stamp["step"] == step]
            raise HodorError(f"scale {config.scale.name}: {none_of((name or step).removeprefix(f'{step}-'), known)}")
        stamp = stamps[name] | {"sha256": sha256_json(stamps[name])}
    hold()
    return stamp


def _of_run(options: Namespace, step: str, benchmark: str | None = None) -> dict[str, Any]:
    """The stamp of a step of one run; sets `options.row` and `options.seed` to those of the run."""
    if options.stamp is None and (options.row is None or (benchmark is None and step != "train")):
        needed = "ROW" if step == "train" else "ROW and BENCHMARK"
        raise HodorError(f"{needed} missing: name what to {step}, for example: hodor {step} hodor-soft-coco")
    name = f"{step}-{options.row}-seed{options.seed}" + (f"-{benchmark}" if benchmark else "")
    stamp = _settings(options, step, name, rows=options.row, seeds=[options.seed])
    options.row, options.seed = stamp.get("row", options.row), stamp.get("seed", options.seed)
    return stamp


def _entry(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"hodor.{module}"), name)


def _fetch(options: Namespace) -> None:
    if options.stamp is None:
        _entry("cli.fetch", "fetch_command")(
            options.names, options.config, options.scale, options.mirror, wait=options.wait
        )
        return
    stamp = _settings(options, "fetch", None)
    # Where to look is not what is wanted: the mirror is in no stamp.
    stamp["settings"]["mirror"] = options.mirror or os.environ.get("HODOR_MIRROR") or None
    edition = stamp["settings"].get("edition")
    lock = paths.locks(edition) if edition in ("official", "subset") else None
    out = paths.archives(stamp["scale"], stamp["settings"]["dataset"])
    _entry("data.fetch", "fetch")(stamp, out, lock)
    record_making(out / "provenance.json")


def _prepare(options: Namespace) -> None:
    from hodor.config.datasets import WEIGHT_SETS

    if options.stamp is None and options.dataset is None:
        raise HodorError("DATASET missing: name what to prepare, for example: hodor prepare davis")
    stamp = _settings(options, "prepare", f"prepare-{options.dataset}")
    scale, dataset = stamp["scale"], stamp["settings"]["dataset"]
    weights = dataset in WEIGHT_SETS
    module, name = ("models.checkpoints.load", "prepare_weights") if weights else ("data.prepare", "prepare")
    archives = options.archives or paths.archives(scale, dataset)
    out = options.out.absolute() if options.out else paths.dataset(scale, dataset)
    manifest = options.manifest or out.with_name(f"{out.name}.json")
    if options.out and not manifest.is_file() and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise HodorError(f"{out}: exists and would be replaced; give a folder that is absent or empty")
    _entry(module, name)(stamp, archives, out, manifest)
    record_making(manifest.with_suffix(".provenance.json"))


def _pack(options: Namespace) -> None:
    stamp = _settings(options, "pack", f"pack-{options.pack}", rows="all")
    scale = stamp["scale"]
    _require_data(paths.dataset(scale, stamp["settings"]["dataset"]))
    jobs = options.jobs or len(os.sched_getaffinity(0))
    out, manifest = paths.packed(scale, options.pack), paths.packed_manifest(scale, options.pack)
    _entry("data.packing", "pack")(stamp, paths.data(scale), out, manifest, jobs=jobs)
    record_making(manifest.with_suffix(".provenance.json"))


def _train(options: Namespace) -> None:
    stamp = _of_run(options, "train")
    settings, scale = stamp["settings"], stamp["scale"]
    out = options.out or paths.run(scale, options.row, options.seed)
    if settings.get("weights"):
        _import_release(stamp, out, options.config)
        return
    data = options.data or paths.data(scale)
    for dataset in settings["datasets"]:
        _require_data(data / dataset)
    for name in settings.get("packs", ()):
        _require_data(data / "packed" / name)
    _limit_threads(stamp)
    execution = _entry("config.execution", "Execution").of_arguments(options)
    if execution.processes > 1 and "RANK" not in os.environ:  # torchrun sets it in the processes that it starts
        sys.exit(_entry("training.distributed", "launch")(execution.processes, options.given))
    _choose_gpu(stamp)
    if scratch := os.environ.get("HODOR_SCRATCH"):  # where to read from, not what is read: in no stamp
        data = _entry("data.packs", "staged")(data, settings.get("packs", ()), scratch)
    init = options.init
    if init is None and settings.get("init"):
        init = paths.run(scale, settings["init"]["row"], options.seed) / "model.safetensors"
    _entry("training.trainer", "train")(stamp, data, out, init, execution)


def _import_release(stamp: dict[str, Any], out: Path, config: Path) -> None:
    """Convert the released weights of a row to its run folder."""
    from hodor.config.loading import load

    row, file = stamp["row"], stamp["settings"]["weights"]
    checkpoint = load(config, {"rows": "all"}).checkpoints.get(row)
    if checkpoint is None:
        raise _absent(file)
    _entry("models.checkpoints.load", "import_release")(stamp, checkpoint, out)


def _absent(file: str) -> HodorError:
    return HodorError(f"{paths.weights() / file}: no such file; get it with: hodor fetch weights")


def _segment(options: Namespace) -> None:
    stamp = _of_run(options, "segment", options.benchmark)
    settings, scale = stamp["settings"], stamp["scale"]
    data = options.data or paths.data(scale)
    _require_data(data / settings["benchmark"]["dataset"])
    _limit_threads(stamp)
    _choose_gpu(stamp)
    weights = options.weights or paths.run(scale, options.row, options.seed) / "model.safetensors"
    out = options.out or paths.prediction(scale, options.row, options.seed, settings["benchmark"]["id"])
    _entry("inference.segment", "segment")(stamp, weights, data, out)


def _score(options: Namespace) -> None:
    stamp, pred, truth, benchmark, out = _masks(options, "score")
    _entry("scoring.score", "score")(pred, truth, benchmark, out, stamp, options.official, options.jobs)


def _submit(options: Namespace) -> None:
    stamp, pred, truth, benchmark, out = _masks(options, "submit")
    target = options.zip
    if target is None and stamp is None:
        raise HodorError("--zip is needed with --pred: the file to write")
    target = target or paths.submission(stamp["scale"], options.row, options.seed, benchmark)
    digest = _entry("scoring.score", "submit")(pred, truth, benchmark, target, out, stamp)
    print(f"{target}: sha256 {digest}", file=sys.stderr)


def _masks(options: Namespace, step: str) -> tuple[dict[str, Any] | None, Path, Path, str, Path | None]:
    """Stamp (None for masks of any origin), masks, data set, benchmark and folder for the scores."""
    if options.pred is not None:
        needed = ("truth", "benchmark", "out") if step == "score" else ("truth", "benchmark")
        if missing := [f"--{name}" for name in needed if getattr(options, name) is None]:
            raise HodorError(f"{', '.join(missing)} missing: --pred needs --{' --'.join(needed)}")
        return None, options.pred, options.truth, options.benchmark, options.out
    if options.row is None or options.at is None:
        raise HodorError(
            f"name a ROW and a BENCHMARK, or masks of any origin: hodor {step} --pred DIR --truth DIR --benchmark ID"
        )
    stamp = _settings(options, step, f"score-{options.at}", rows=options.row, seeds=[options.seed])
    scale, dataset = stamp["scale"], stamp["settings"]["benchmark"]["dataset"]
    _require_data(paths.dataset(scale, dataset))
    out = paths.prediction(scale, options.row, options.seed, options.at)
    return stamp, out / "masks", paths.dataset(scale, dataset), options.at, out


def _manifest(options: Namespace) -> None:
    if options.row is None:
        raise HodorError("ROW missing: name the run, for example: hodor manifest hodor-soft-coco --seed 1")
    scale, benchmarks = options.scale, options.benchmarks
    if scale is None:
        from hodor.config.loading import load

        config = load(options.config, {"rows": options.row})
        scale = config.scale.name
        benchmarks = config.benchmarks(options.row) if benchmarks is None else benchmarks
    run = _entry("reporting.runs", "read_run")(paths.run(scale, options.row, options.seed), benchmarks)
    _entry("reporting.runs", "merge_manifest")(run)


def _tabulate(options: Namespace) -> None:
    stamp = _settings(options, "tabulate", f"tabulate-{options.table}")
    results = paths.results(stamp["scale"])
    files = _entry("reporting.tables", "tabulate")(stamp, paths.runs(stamp["scale"]), results)
    record_making(results / f"{options.table}.provenance.json", files)


def _claims(options: Namespace) -> None:
    stamp = _settings(options, "claims", "claims")
    results = paths.results(stamp["scale"])
    files = _entry("reporting.claims", "claims")(stamp, paths.runs(stamp["scale"]), results)
    record_making(results / "claims.provenance.json", files)


def _render(options: Namespace) -> None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "workflow" / "notebooks").is_dir():
        raise HodorError(
            f"{root}: no checkout of the repository, whose notebooks make the report; run this verb in one"
        )
    stamp = _settings(options, "render", "render")
    folders = (folder(stamp["scale"]) for folder in (paths.results, paths.runs, paths.data, paths.reports))
    files = _entry("reporting.site", "render")(stamp, *folders)
    record_making(paths.reports(stamp["scale"]) / "pages.provenance.json", files)


def _require_data(folder: Path) -> None:
    """HodorError for a data set that is absent: it may be deleted to save room, its manifest stays."""
    if not folder.is_dir():
        raise HodorError(
            f"{folder}: the folder of this data set is missing; make it from its archives with: "
            f"snakemake --cores 1 --force -- {folder}.json"
        )


def _choose_gpu(stamp: dict[str, Any]) -> None:
    """Take GPUs that no other job has, before torch looks for any."""
    if stamp["settings"].get("device") == "cuda":
        _entry("gpus", "take")()


def _limit_threads(stamp: dict[str, Any]) -> None:
    """Set the threads of the numerical libraries before they load.

    Snakemake sets them to what `--cores` leaves, and the same job would give other numbers with fewer cores.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(stamp["settings"]["threads"])
