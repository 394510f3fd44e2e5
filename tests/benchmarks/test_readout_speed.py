"""The readout's benchmark at a tiny size: both ways read the same, and the result is written."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_both_ways_read_the_same(tmp_path):
    # 8 frames of 70 cells: 35 groups, so that top-k 3 takes the way by groups.
    size = "--frames 8 --height 7 --width 10 --objects 2 --top-k 3 --rounds 2 --threads 1".split()
    command = [sys.executable, ROOT / "benchmarks/readout_speed.py", *size, "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("readout_speed_*.md")
    rows = [line.strip("| ").split(" | ") for line in result.read_text().splitlines() if line.startswith("|")][2:]
    assert [row[0] for row in rows] == ["top-k", "softmax", "kernel"]
    assert all(float(row[7]) < 1e-5 and row[8] == "0 of 70" for row in rows)


def test_a_difference_that_no_tie_explains_ends_it(tmp_path):
    broken = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import readout_speed
dense = readout_speed.dense
readout_speed.dense = lambda *inputs: dense(*inputs) * 1.001
readout_speed.main()
"""
    size = "--frames 2 --height 3 --width 4 --objects 1 --top-k 2 --rounds 1 --threads 1".split()
    command = [sys.executable, "-c", broken, *size, "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "no tie explains it" in done.stderr
    assert not list(tmp_path.iterdir())
