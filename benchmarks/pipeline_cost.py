"""Measure the overhead of the pipeline: `snakemake` with nothing to do, and the start of every verb.

    python benchmarks/pipeline_cost.py                                  # makes scale tiny first: minutes
    python benchmarks/pipeline_cost.py --folder .                       # where `make reproduce` was run: its scale
    python benchmarks/pipeline_cost.py --plugins .venv/cluster          # and with the plugin for Slurm in reach
    python benchmarks/pipeline_cost.py --rows copy-first-mask --rounds 1    # to try it

A verb starts twice: `--help` is what every job pays before it knows what to do, "its code" is that and the import of all
that it computes with. Every command is a process of its own, the ways in turn; files are in the system's cache.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import Times, alternate, script_parser, write_result

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("CITATION.cff", "Snakefile", "config", "environment.yml", "hodor", "profiles", "pyproject.toml", "workflow")
VERBS = {
    "fetch": "hodor.data.fetch",
    "prepare": "hodor.data.prepare",
    "train": "hodor.training.trainer",
    "segment": "hodor.inference.segment",
    "score": "hodor.scoring.score",
    "submit": "hodor.scoring.score",
    "manifest": "hodor.reporting.runs",
    "tabulate": "hodor.reporting.tables",
    "claims": "hodor.reporting.claims",
    "render": "hodor.reporting.site",
    "convert": "hodor.cli.convert",
    "export": "hodor.cli.export",
    "verify": "hodor.doctor.verify",
    "import": "hodor.doctor.verify",
    "cost": "hodor.doctor.cost",
    "doctor": "hodor.doctor.checks",
    "track": "hodor.inference.track_video",
}
"""Verb -> the module that does it: those of the workflow, and those for people (`hodor.cli`, `hodor.cli.tools`)."""


def run(*command: str, folder: Path, plugins: Path | None = None, says: str = "") -> str:
    """Output of a command; ends the program if it fails or does not say what it must."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    if plugins:
        environment["PYTHONPATH"] = str(plugins.resolve())
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode or says not in done.stdout:
        sys.exit(f"pipeline_cost: {' '.join(command)}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def make(folder: Path, rows: str) -> None:
    """A copy of the repository in which scale tiny was run."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, folder / part)
    path = folder / "config" / "config.yaml"
    text = path.read_text().replace("\nscale: mini\n", "\nscale: tiny\n")
    path.write_text(text.replace("\nrows: [main]\n", f"\nrows: [{rows}]\n"))
    run("snakemake", "--cores", "all", "--", "tables", folder=folder)


def line(what: str, *times: Times) -> str:
    """A line of the result: median, and the slowest, of each column."""
    return f"| {what} | " + " | ".join(f"{t.median:.2f} | {max(t.seconds):.2f}" for t in times) + " |"


def main() -> None:
    parser = script_parser(__doc__, rounds=7)
    parser.add_argument(
        "--folder", type=Path, help="a checkout in which the tables were made; absent: scale tiny is made"
    )
    parser.add_argument("--rows", default="main", help="as `rows` of config/config.yaml, for the tables that are made")
    parser.add_argument("--plugins", type=Path, help="folder with plugins of Snakemake, to start with and without them")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS), metavar="VERB")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("at least one round")
    with tempfile.TemporaryDirectory(prefix="pipeline-cost-") as temporary:
        folder = options.folder or Path(temporary)
        if options.folder is None:
            make(folder, options.rows)
        noop = ("snakemake", "--cores", "all", "--", "tables")
        jobs = run("snakemake", "--dry-run", "--forceall", "--quiet", "rules", *noop[3:], folder=folder)
        count = int(re.findall(r"^total\s+(\d+)$", jobs, re.MULTILINE)[0])
        ways = {"snakemake": partial(run, *noop, folder=folder, says="Nothing to be done")}
        if options.plugins:
            ways["with plugins"] = partial(
                run, *noop, folder=folder, plugins=options.plugins, says="Nothing to be done"
            )
        for verb in options.verbs:
            command = (sys.executable, "-m", "hodor", verb, "--help")
            ways[f"{verb} --help"] = partial(run, *command, folder=folder, says=f"usage: hodor {verb}")
            ways[f"{verb}: code"] = partial(
                run, sys.executable, "-c", f"import hodor.cli, {VERBS[verb]}", folder=folder
            )
        times = alternate(ways, options.rounds)
    slowest = max(options.verbs, key=lambda verb: times[f"{verb}: code"].median)
    lines = [
        "# What the pipeline itself costs, in seconds",
        "",
        f"Made by `python benchmarks/pipeline_cost.py`, whose docstring describes the measurement; {options.rounds} rounds.",
        "",
        "| `snakemake` with nothing to do | median | slowest |",
        "|---|---:|---:|",
        line(f"a DAG of {count} jobs", times["snakemake"]),
    ]
    if options.plugins:
        lines.append(line("the same with the plugin for Slurm in reach", times["with plugins"]))
    lines += [
        "",
        "| verb | `--help`, median | slowest | its code, median | slowest |",
        "|---|---:|---:|---:|---:|",
        *(line(verb, times[f"{verb} --help"], times[f"{verb}: code"]) for verb in options.verbs),
        "",
        f"- all verbs: {statistics.median(times[f'{verb} --help'].median for verb in options.verbs):.2f} s until the arguments are "
        f"read; the slowest, {slowest}: {times[f'{slowest}: code'].median:.2f} s until it may begin",
    ]
    write_result("pipeline-cost", lines, options.out)


if __name__ == "__main__":
    main()
