"""The attention variants at scale subset with several seeds: real images, six real sequences, in slices of minutes.

    python benchmarks/subset_ablation.py --mirror FOLDER --budget-minutes 2          # on a GPU
    python benchmarks/subset_ablation.py --mirror FOLDER --steps 150 --slice 300     # a slice; exit status 3: call again
    until python benchmarks/subset_ablation.py --mirror FOLDER --steps 150 --slice 300; do [ $? = 3 ] || break; done
    python benchmarks/subset_ablation.py --mirror FOLDER --bundle subset.tar         # for a machine without network
    python benchmarks/subset_ablation.py --mirror subset.tar --budget-minutes 2      # there

FOLDER is a mirror (docs/data.md) with coco, coco-persons-small and davis of the edition `subset`. The workflow does the
work, below --work: hodor-{none,hard,soft}-coco and the copy of the first mask (phase `short`), the same with four times the
steps (`long`), and the baselines with the steps of `short` (`baselines`); --until says how far to go. Every row has the same
number of steps, given by --steps or measured for --budget-minutes on this machine. What was settled at the first call stands
in <work>/plan.json. Trainings go on from their checkpoints. After every slice the page
benchmarks/results/subset_seeds_<machine>.md is written from what there is, and says what is missing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import subset_bundle
import subset_page
import torch
from subset_phase import Phase

from hodor import paths
from hodor.config import loading as config
from hodor.errors import HodorError
from hodor.provenance import read_json, write_json_atomic
from hodor.reporting.runs import read_log

ROOT = Path(__file__).resolve().parent.parent
ABLATION = ("hodor-none-coco", "hodor-hard-coco", "hodor-soft-coco", "copy-first-mask")
BASELINES = ("stm", "kmn", "stcn", "dmn-aoa")
PHASES = {"short": (ABLATION, 1), "long": (ABLATION, 4), "baselines": (ABLATION + BASELINES, 1)}
"""Name -> rows, and how many times the steps of `short` they are trained."""
UNFINISHED = 3
PILOT_STEPS = 24
# A training that was told to end writes a checkpoint first.
GRACE_S = 60


@dataclass(frozen=True)
class Plan:
    """What is run, the same at every call. short_side: null: that of the scale."""

    scale: str
    seeds: list[int]
    steps: int
    device: str
    threads: int
    short_side: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mirror", type=Path, help="folder with <data set>/<archive>, or a bundle")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation", help="folder for data and runs")
    parser.add_argument("--slice", type=float, metavar="SECONDS", help="stop after so long; the next call goes on")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="of one training")
    length.add_argument("--budget-minutes", type=float, help="of one training; its steps are measured")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2 if absent")
    parser.add_argument("--until", choices=PHASES, default="short", help="the last phase to run")
    parser.add_argument(
        "--short-side", type=int, help="pixels at which frames are segmented; that of the scale if absent"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU if there is one")
    parser.add_argument("--threads", type=int, help="of one training; those of the scale if absent")
    parser.add_argument("--cores", type=int, help="of all jobs together; all if absent")
    parser.add_argument("--scale", help="another scale than subset, to try the script")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine did")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page-only", action="store_true", help="write the page from what there is, run nothing")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="pack the mirror, at most 60 MiB, and end")
    options = parser.parse_args()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(_bundle(options) if options.bundle else _ablation(options))
    except HodorError as error:
        sys.exit(f"subset_ablation: {error}")


def _bundle(options: argparse.Namespace) -> int:
    if options.mirror is None or not options.mirror.is_dir():
        raise HodorError("--bundle needs --mirror, the folder with the archives that it packs")
    subset_bundle.write(options.mirror, options.bundle)
    return 0


def _ablation(options: argparse.Namespace) -> int:
    """The exit status: 0, or UNFINISHED where the slice was too short for all."""
    work, began = options.work.resolve(), time.monotonic()
    end = None if options.slice is None else began + options.slice
    unfinished = False
    if options.mirror and options.mirror.is_file():
        options.mirror = subset_bundle.unpack(options.mirror, work)
    try:
        plan = _plan(options, work, end)
        if plan is None:
            return UNFINISHED
        if not options.page_only:
            names = list(PHASES)[: list(PHASES).index(options.until) + 1]
            unfinished = not all(_run(plan, phase, options, work, end) for phase in names)
    finally:
        if not options.page_only:
            _add_time(work, time.monotonic() - began)
    subset_page.write(_shown(plan, work), asdict(plan), _wall(work), _notes(options, work), options.out)
    return UNFINISHED if unfinished else 0


def _shown(plan: Plan, work: Path) -> list[Phase]:
    """One phase for each length of training: `baselines`, which has the rows of `short` too, once one of them is there."""
    baselines = phase_of(plan, "baselines", work)
    trained = any(baselines.finished(row) for row in BASELINES)
    return [phase_of(plan, name, work) for name in ("baselines" if trained else "short", "long")]


def _notes(options: argparse.Namespace, work: Path) -> list[str]:
    """What is to be said of the runs beside their numbers: what the data were is kept from the call that named them."""
    path = work / "about_data.json"
    if options.mirror and not path.exists():
        write_json_atomic(path, {"about": subset_bundle.about(options.mirror)})
    return [text for text in (read_json(path)["about"] if path.exists() else "", options.note) if text]


def _plan(options: argparse.Namespace, work: Path, end: float | None) -> Plan | None:
    """The plan of the first call, with which the options of this one must agree; None: the slice ended before it."""
    path = work / "plan.json"
    if path.exists():
        plan = Plan(**read_json(path))
        for name, value in asdict(plan).items():
            given = getattr(options, name)
            if given is not None and given != value:
                raise HodorError(
                    f"{path}: {name} is {value}, not {given}: leave it out, or name another folder by --work"
                )
        return plan
    if options.steps is None and options.budget_minutes is None:
        raise HodorError("say how long a training is, by --steps or by --budget-minutes")
    _check(options)
    scale = config.load(ROOT / "config", {"scale": options.scale or "subset"}).scale
    plan = Plan(
        scale=scale.name,
        seeds=options.seeds or [0, 1, 2],
        steps=options.steps or PILOT_STEPS,
        device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=options.threads or scale.threads,
        short_side=options.short_side,
    )
    if options.budget_minutes is not None:
        seconds = _pilot(plan, options, work, end)
        if seconds is None:
            return None
        steps = max(PILOT_STEPS, int(60 * options.budget_minutes / seconds) // 10 * 10)
        print(f"a step takes {seconds:.3f} s: {steps} steps in {options.budget_minutes:g} minutes", flush=True)
        plan = Plan(**asdict(plan) | {"steps": steps})
    write_json_atomic(path, asdict(plan))
    return plan


def _check(options: argparse.Namespace) -> None:
    for name in ("steps", "budget_minutes", "threads", "short_side"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise HodorError(f"--{name.replace('_', '-')} {value:g}: must be above 0")


def _pilot(plan: Plan, options: argparse.Namespace, work: Path, end: float | None) -> float | None:
    """Seconds of a step of the soft row, which costs most: the later half of a short training."""
    row, folder = "hodor-soft-coco", work / "pilot"
    target = paths.run(plan.scale, row, 0) / "train.json"
    overrides = _overrides(plan, PILOT_STEPS) | {"stages.images.log_every": PILOT_STEPS // 4}
    settings = _settings(plan, [row], overrides) | {"seeds": [0]}
    if not _snakemake(settings, folder, [target], [], options, end):
        return None
    batch = config.load(ROOT / "config", {"scale": plan.scale}).scale.stages["images"].batch
    lines = read_log(folder / target.with_name("train.jsonl"))
    return batch / min(line["examples_per_second"] for line in lines[len(lines) // 2 :])


def _run(plan: Plan, phase: str, options: argparse.Namespace, work: Path, end: float | None) -> bool:
    """Goes on with a phase; whether it is finished."""
    found = phase_of(plan, phase, work)
    missing = {seed: [row for row in found.rows if seed not in found.finished(row)] for seed in plan.seeds}
    missing = {seed: rows for seed, rows in missing.items() if rows}
    if not missing:
        return True
    if end is not None and time.monotonic() >= end:
        return False
    targets = {
        seed: [paths.run(plan.scale, row, seed) / "manifest.json" for row in rows] for seed, rows in missing.items()
    }
    everything = [target for some in targets.values() for target in some]
    # What was begun, and the first seed of all rows before the second: what there is compares at any time.
    begun = [target for target in everything if (found.folder / target).with_name("checkpoints").is_dir()]
    first = list(dict.fromkeys([*begun, *next(iter(targets.values()))]))
    done = _snakemake(found.settings, found.folder, everything, first, options, end)
    count = sum(len(found.finished(row)) for row in found.rows)
    print(f"{phase}: {count} of {len(found.rows) * len(plan.seeds)} runs are scored", flush=True)
    return done


def phase_of(plan: Plan, name: str, work: Path) -> Phase:
    """A phase with its settings."""
    rows, factor = PHASES[name]
    steps = factor * plan.steps
    settings = _settings(plan, list(rows), _overrides(plan, steps))
    return Phase(name, rows, plan.seeds, steps, settings, _folder(work, plan, name), ROOT)


def _folder(work: Path, plan: Plan, phase: str) -> Path:
    return work / f"steps{PHASES[phase][1] * plan.steps}"


def _settings(plan: Plan, rows: list[str], overrides: dict) -> dict:
    """Keys of config/config.yaml."""
    return {"scale": plan.scale, "rows": rows, "seeds": plan.seeds, "overrides": overrides}


def _overrides(plan: Plan, steps: int) -> dict:
    """Keys of the scale: the length of every training on images, and with it what is given in steps."""
    loaded = config.load(ROOT / "config", {"scale": plan.scale})
    scale, found = loaded.scale, {"device": plan.device, "threads": plan.threads}
    if plan.short_side is not None:
        found["inference.short_side"] = plan.short_side
    for name, stage in scale.stages.items():
        if stage.kind.endswith("video"):
            continue
        found |= {
            f"stages.{name}.steps": steps,
            f"stages.{name}.warmup_steps": min(stage.warmup_steps, steps // 10),
            f"stages.{name}.checkpoint_every": max(1, min(stage.checkpoint_every, steps // 6)),
            f"stages.{name}.log_every": max(1, min(stage.log_every, steps // 30)),
        }
    for row in BASELINES:
        method = loaded.rows[row].method
        stage = scale.stages.get(loaded.rows[row].stage)
        for key in ("bootstrap_start", "bootstrap_end"):
            if stage and key in scale.methods.get(method, {}):
                found[f"methods.{method}.{key}"] = round(scale.methods[method][key] * steps / stage.steps)
    return found


def _snakemake(
    settings: dict, folder: Path, targets: list[Path], first: list[Path], options: argparse.Namespace, end: float | None
) -> bool:
    """Runs the workflow in a folder; whether it ended before the slice did. HodorError where it failed."""
    if settings["scale"] == "subset" and options.mirror is None and not (folder / "data").is_dir():
        raise HodorError("--mirror is missing: the folder with the archives of the edition `subset`")
    folder.mkdir(parents=True, exist_ok=True)
    given = settings | ({"mirror": str(options.mirror.resolve())} if options.mirror else {})
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", str(options.cores or "all"), "--quiet", "rules"]
    command += ["--config", *(f"{key}={json.dumps(value)}" for key, value in given.items())]
    command += ["--prioritize", *map(str, first)] if first else []
    with (folder / "snakemake.log").open("a") as log:
        # A group of its own, so that all of it can be ended, in the session of this process.
        job = subprocess.Popen([*command, "--", *map(str, targets)], stdout=log, stderr=log, process_group=0)
        try:
            status = job.wait(None if end is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(job)
    if status:
        tail = "\n".join((folder / "snakemake.log").read_text(errors="replace").splitlines()[-30:])
        raise HodorError(f"the workflow failed; the end of {folder / 'snakemake.log'}:\n{tail}")
    return True


def _end(job: subprocess.Popen) -> None:
    """Ends what is left of a job's process group."""
    for sign, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 10)):
        end = time.monotonic() + patience
        try:
            os.killpg(job.pid, sign)
            while time.monotonic() < end:
                job.poll()  # without it a process that ended stays in its group
                os.killpg(job.pid, 0)
                time.sleep(0.2)
        except ProcessLookupError:
            return


def _wall(work: Path) -> float:
    path = work / "wall.json"
    return read_json(path)["seconds"] if path.exists() else 0.0


def _add_time(work: Path, seconds: float) -> None:
    work.mkdir(parents=True, exist_ok=True)
    write_json_atomic(work / "wall.json", {"seconds": _wall(work) + seconds})


if __name__ == "__main__":
    main()
