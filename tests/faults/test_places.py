"""A disk that is full and a folder that is read-only: one line that names file and fix, and the same command goes on.

Both are made within a mount namespace of the test's own (`unshare -m`, as root: a mode bit stops root from nothing).
"""

import hashlib
import json
import re
import subprocess

import pytest

from tests.data.hostile_server import hostile_server, noise_zip

ROWS = "rows=hodor-soft-coco,hodor-none-coco"
TABLE = f"snakemake --cores 1 --config {ROWS} -- results/ablation_table.csv"
FIX = "then run the same command again; finished work is kept"


@pytest.fixture(scope="module", autouse=True)
def mounts() -> None:
    """Skips where no file system can be mounted."""
    try:
        done = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, timeout=30
        )
    except OSError as error:
        pytest.skip(f"a full disk cannot be made here: unshare: {error.strerror}")
    if done.returncode:
        pytest.skip(f"a full disk cannot be made here, unshare -m with mount says: {done.stderr.strip()}")


def with_mounts(checkout, *steps: str) -> list[tuple[int, str]]:
    """Exit status and output of each step of a shell script; mounts that a step makes are there for the following."""
    script = "\n".join(f'( {step}\n)\necho "<$?>"' for step in steps)
    output = checkout.run("unshare", "-m", "bash", "-c", script).stdout
    parts = re.split(r"^<(\d+)>\n", output, flags=re.MULTILINE)
    return [(int(status), text) for text, status in zip(parts[::2], parts[1::2])]


def only_line(output: str, *says: str) -> None:
    """Exactly one line of an output says all this, and there is no traceback."""
    assert "Traceback" not in output, output[-3000:]
    assert len([line for line in output.splitlines() if all(text in line for text in says)]) == 1, output[-3000:]


@pytest.mark.parametrize(("size", "step"), [("8k", "tabulate"), pytest.param("16k", "publish", marks=pytest.mark.long)])
def test_a_full_disk_while_a_table_is_written(checkout, size, step):
    checkout.snakemake("--config", ROWS, "--", "results/ablation_table.csv")
    before = {path: path.read_bytes() for path in (checkout.path / "results").rglob("ablation_table.*")}
    trained = (checkout.path / "runs/tiny/hodor-soft-coco/seed0/model.safetensors").stat().st_mtime_ns
    steps = with_mounts(
        checkout,
        f"mkdir kept && mount -t tmpfs -o size={size} tmpfs results && touch results/README.md",
        TABLE,
        "ls -AR results",
        "mount -o remount,size=10m results",
        TABLE,
        "cp -r results kept",
    )
    assert [status for status, _ in steps] == [0, 1, 0, 0, 0, 0]
    if step == "tabulate":
        only_line(steps[1][1], "hodor tabulate: error: results/tiny/ablation_table.", "No space left on device", FIX)
    else:
        assert re.search(r"^cp: .*'results/ablation_table\.csv': No space left on device$", steps[1][1], re.MULTILINE)
        assert len(re.findall(rf"^fix what cp reports, {FIX}$", steps[1][1], re.MULTILINE)) == 1
    assert ".part" not in steps[2][1]
    assert len(before) == 6
    for path, content in before.items():
        assert (checkout.path / "kept" / path.relative_to(checkout.path)).read_bytes() == content
    done_again = re.findall(r"^(?:local)?rule (\w+):", steps[4][1], re.MULTILINE)
    assert done_again == (["tabulate_ablation", "publish_ablation"] if step == "tabulate" else ["publish_ablation"])
    assert (checkout.path / "runs/tiny/hodor-soft-coco/seed0/model.safetensors").stat().st_mtime_ns == trained


def test_a_full_disk_where_the_stamps_lie(fresh):
    steps = with_mounts(fresh(), "mkdir runs && mount -t tmpfs -o size=16k tmpfs runs", TABLE)
    assert [status for status, _ in steps] == [0, 1]
    only_line(steps[1][1], "runs/tiny/stamps/", "No space left on device", FIX)


def test_a_full_disk_while_data_are_generated(fresh):
    checkout, target = fresh(), "data/tiny/davis.json"
    steps = with_mounts(
        checkout,
        "mkdir -p data kept && mount -t tmpfs -o size=64k tmpfs data && touch data/README.md",
        f"snakemake --cores 1 -- {target}",
        "mount -o remount,size=100m data",
        f"snakemake --cores 1 -- {target}",
        "cp -r data kept",
    )
    assert [status for status, _ in steps] == [0, 1, 0, 0, 0]
    only_line(steps[1][1], "hodor fetch: error: data/tiny/archives/davis/", "No space left on device", "make room")
    assert json.loads((checkout.path / "kept" / target).read_text())["dataset"] == "davis"


def test_a_read_only_folder_for_results(checkout):
    command = "snakemake --cores 1 --config rows=hodor-soft-coco -- results/ablation_table.csv"
    checkout.set("scales/tiny", "inference.temporal_window", 2)
    steps = with_mounts(
        checkout,
        "mount --bind results results && mount -o remount,ro,bind results",
        command,
        "umount results",
        command,
    )
    assert [status for status, _ in steps] == [0, 1, 0, 0]
    only_line(steps[1][1], "results: Read-only file system", FIX)
    assert "rule segment" not in steps[1][1], "reported before anything runs"
    assert steps[3][1].count("rule segment:") == 1


@pytest.mark.parametrize("kind", ["download", "copy"])
def test_a_full_disk_while_an_archive_arrives(fresh, kind):
    checkout, out = fresh(), "data/tiny/archives/davis2016"
    content = noise_zip(0, size=1 << 20)
    with hostile_server() as server:
        server.files, server.script = {"DAVIS-data.zip": content}, ["unannounced"] * 9
        entry = {"archive": "DAVIS-data.zip", "address": f"{server.address}/DAVIS-data.zip"}
        entry |= {"sha256": hashlib.sha256(content).hexdigest()}
        settings = {"dataset": "davis2016", "edition": "official", "archives": [entry], "generated": None}
        stamp = {"step": "fetch", "scale": "tiny", "settings": settings, "recipes": {}}
        (checkout.path / "stamp.json").write_text(json.dumps(stamp))
        mirror = ""
        if kind == "copy":
            (checkout.path / "mirror" / "davis2016").mkdir(parents=True)
            (checkout.path / "mirror" / "davis2016" / "DAVIS-data.zip").write_bytes(content)
            mirror = "HODOR_MIRROR=mirror "
        fetch = f"{mirror}python -m hodor fetch --stamp stamp.json"
        steps = with_mounts(
            checkout,
            f"mkdir -p {out} kept && mount -t tmpfs -o size=512k tmpfs {out}",
            fetch,
            f"ls -A {out}",
            f"mount -o remount,size=10m {out}",
            fetch,
            f"cp {out}/DAVIS-data.zip kept",
        )
    assert [status for status, _ in steps] == [0, 1, 0, 0, 0, 0], steps
    assert steps[1][1].count("\n") == 1 and steps[1][1].startswith(f"hodor fetch: error: {out}"), steps[1][1]
    assert "make room" in steps[1][1]
    assert (checkout.path / "kept" / "DAVIS-data.zip").read_bytes() == content
    if kind == "download":  # what had arrived is kept: the second call asks for the rest
        assert "DAVIS-data.zip.part" in steps[2][1]
        ranges = server.ranges()
        assert ranges[0] is None and re.fullmatch(r"bytes=[1-9]\d{4,}-", ranges[-1])
