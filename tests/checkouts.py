"""The whole DAG at scale tiny: run once in a copy of the repository, whose copies the tests then change.

Fixtures for tests/workflow, tests/faults and tests/cluster (a plugin of tests/conftest.py).
"""

import atexit
import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from hodor.config import loading as config

# What a checkout holds, as far as the workflow needs it; generated folders and the environment stay behind.
PARTS = [
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "CITATION.cff",
    "Makefile",
    "Snakefile",
    "config",
    "dvc.yaml",
    "environment.yml",
    "hodor",
    "profiles",
    "pyproject.toml",
    "reports/README.md",
    "results/README.md",
    "workflow",
]
ROWS = (
    *("copy-first-mask", "hodor-soft-untrained", "hodor-none-coco", "hodor-hard-coco", "hodor-soft-coco"),
    *("hodor-soft-cyclic", "hodor-soft-coco-alpha0", "stm", "stcn", "stcn-orthogonal"),
    *("hodor-soft-coco-released", "stcn-released"),  # whose files are absent
)
"""Rows of the finished checkout: of every table, method family, stage and kind of start one or two."""
LIMIT_S = 1800
ABSENT = object()
MEASURED = ("time_s", "fps", "peak_memory_mib", "gpu_peak_memory_mib", "examples_per_second", "log")
"""Keys of the records that differ from run to run: how long it took and how much memory, and the digest of such a log."""


# Forks itself for each command, with everything imported beforehand but this project: that is most of a short job's time.
_SERVER = """
import atexit, gc, json, os, runpy, select, signal, socket, sys, traceback
import cv2, matplotlib.figure, nbconvert, papermill, pandas, pycocotools.mask, pydantic, safetensors.torch, torch, yaml
import dvc.cli.parser, dvc.repo, snakemake.cli, snakemake.report.html_reporter, yte.value_handler
gc.freeze()
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while listener in select.select([listener, sys.stdin], [], [])[0]:  # the end of stdin ends the server
    connection = listener.accept()[0]
    if os.fork():
        connection.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    if child := os.fork():
        for file in files:
            os.close(file)
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.argv, folder, environment = json.loads(text)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    place, name = os.path.split(sys.argv[0])
    status = 1
    try:
        if name == "snakemake":
            sys.executable = os.path.join(place, "python")  # its jobs run with that
            snakemake.cli.main()
        elif name == "dvc":
            status = dvc.cli.main()
        else:
            sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
            del sys.argv[:2]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    # Without the interpreter's own end, which touches all that was imported and takes longer than many a job.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
"""
_CLIENT = """#!{python} -IS
import json, os, socket, sys
if os.path.basename(sys.argv[0]) == "python" and sys.argv[1:2] != ["-m"]:  # modules alone are served
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect({address!r})
socket.send_fds(connection, [json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
status = int(connection.recv(16) or 1)
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def _served() -> str:
    """A folder with commands `dvc`, `python` and `snakemake` that a process of `_SERVER` runs; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="served-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = f"{folder}/socket"
    for name in ("dvc", "python", "snakemake"):
        path = Path(folder, name)
        path.write_text(_CLIENT.format(python=sys.executable, address=address))
        path.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    server = subprocess.Popen([sys.executable, "-P", "-c", _SERVER, address], **pipes)
    atexit.register(server.stdin.close)
    assert server.stdout.readline() == b"\n"
    return folder


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository. Commands run in it, with the environment of the tests and nothing else of it."""

    path: Path
    served: ClassVar[bool] = True
    """Whether processes that have imported everything before run its commands (`_SERVER`); signals do not reach those."""

    def environment(self) -> dict[str, str]:
        """Environment variables of a command."""
        left_out = ("PYTHONPATH", "HODOR_MIRROR", "PYTHONDONTWRITEBYTECODE")  # each job would compile the package again
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        return environment

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command; its output (stdout and stderr together) is `stdout`. A failure is an assertion error."""
        environment = self.environment()
        if self.served and command[0] in ("bash", "dvc", "python", "snakemake"):
            environment["PATH"] = f"{_served()}:{environment['PATH']}"
        done = subprocess.run(
            command,
            cwd=cwd or self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0 or not check, done.stdout[-4000:]
        return done

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Output of `snakemake --cores 2 ...`."""
        return self.run("snakemake", "--cores", "2", *arguments, check=check).stdout

    def dry_run(self, *arguments: str) -> str:
        """Output of `snakemake -n ...`."""
        return self.run("snakemake", "-n", *arguments).stdout

    def due(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that `snakemake -n ...` would run, without the rules that only name targets."""
        return planned(self.dry_run(*arguments))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces a text that must occur in a file exactly once."""
        path = self.path / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def set(self, file: str, key: str, value: object) -> object:
        """Sets a key of `config/<file>.yaml` (`set_yaml`); returns its old value."""
        return set_yaml(self.path / "config" / f"{file}.yaml", key, value)

    def results(self, *rows: str) -> dict[str, bytes]:
        """Path -> content of all that two runs of the workflow must agree in, byte for byte.

        Archives, data sets, stamps, and of these rows (of every row that they start from, too) checkpoints, training
        logs, masks, scores and records; the tables and verdicts. What was measured while it was made (MEASURED) is
        taken out of the records; logs, Snakemake's benchmarks and costs.csv hold nothing else and are left out.
        """
        settings = self.config()
        wanted = {of for row in rows for of in settings.lineage(row)}
        folders = [self.path / "data", *(self.path / "runs" / "tiny" / row for row in wanted), self.path / "results"]
        found = {}
        for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
            if path.name not in (".lock", ".snakemake_timestamp", "costs.csv", "costs.provenance.json"):
                found[str(path.relative_to(self.path))] = _without_measured(path)
        return found

    def config(self) -> config.Config:
        """The settings as they are in this checkout."""
        return config.load(self.path / "config")

    def table(self, file: str) -> list[dict[str, str]]:
        """The lines of a CSV file."""
        with open(self.path / file, newline="") as table:
            return list(csv.DictReader(table))

    def append(self, file: str, text: str) -> None:
        path = self.path / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def set_yaml(path: Path, key: str, value: object) -> object:
    """Sets a dotted key of a YAML file, whose parents must be there, or deletes it (ABSENT); returns its old value."""
    content = at = yaml.safe_load(path.read_text(encoding="utf-8"))
    *parents, last = key.split(".")
    for parent in parents:
        at = at[int(parent) if isinstance(at, list) else parent]
    old = at.pop(last, ABSENT)
    if value is not ABSENT:
        at[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return old


def planned(output: str) -> dict[str, int]:
    """Rule -> number of jobs, out of the output of a dry run; without the rules that only name targets."""
    if "Nothing to be done" in output:
        return {}
    table = output.rpartition("Job stats:")[2].partition("\n\n")[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\S+)\s+(\d+)$", table, re.MULTILINE)}
    assert counts.pop("total", None), output[-4000:]
    return {rule: count for rule, count in counts.items() if rule not in ("all", "tables", "pages")}


def _without_measured(path: Path) -> bytes:
    """A file's bytes; of a record (JSON, JSON lines) its canonical text without MEASURED."""

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(entry) for key, entry in value.items() if key not in MEASURED}
        return [clean(entry) for entry in value] if isinstance(value, list) else value

    if path.suffix not in (".json", ".jsonl") or "data" in path.parts:
        return path.read_bytes()
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return "\n".join(json.dumps(clean(json.loads(text)), sort_keys=True) for text in texts).encode()


def _copy_repository(root: Path, target: Path) -> Checkout:
    """A new checkout, configured for scale tiny."""
    for part in PARTS:
        source = root / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / part)
    checkout = Checkout(target)
    checkout.set("config", "scale", "tiny")
    return checkout


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one process of a session makes (pytest-xdist runs several); the others wait for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    folder = factory.getbasetemp().parent / name
    with open(folder.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            part = folder.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that failed
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout, configured for scale tiny and ROWS, in which everything was made. Read it only."""

    def make(folder: Path) -> None:
        checkout = _copy_repository(root, folder)
        checkout.set("config", "rows", list(ROWS))
        (checkout.path / "output.txt").write_text(checkout.snakemake())

    return Checkout(made_once(tmp_path_factory, "finished", make))


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished checkout, time stamps and Snakemake's metadata included."""
    shutil.copytree(finished.path, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def fresh(root: Path, tmp_path: Path) -> Callable[[], Checkout]:
    """Makes a checkout in which nothing was run yet, another one at every call."""
    numbers = count()
    return lambda: _copy_repository(root, tmp_path / f"fresh{next(numbers)}")
