"""benchmarks/step_speed.py as a tiny run: both ways take the same first step, and `hodor cost` reads the file."""

import csv
import subprocess
import sys

from hodor.doctor.cost import MEASURED, read_measured


def test_a_tiny_run(root, tmp_path):
    small = ["--scale", "tiny", "--device", "cpu", "--steps", "2", "--rounds", "1", "--pictures", "6", "--threads", "1"]
    command = [sys.executable, "benchmarks/step_speed.py", *small, "--out", tmp_path]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)
    (file,), (table,) = tmp_path.glob(f"{MEASURED}_*.csv"), tmp_path.glob(f"{MEASURED}_*.md")
    with file.open(newline="") as text:
        eager, tuned = csv.DictReader(text)
    assert (eager["way"], tuned["way"], tuned["row"]) == ("eager", "tuned", "hodor-soft-coco")
    assert eager["first_loss"] == tuned["first_loss"]
    assert 0 <= float(tuned["waiting"]) < 1 and eager["utilisation"] == tuned["utilisation"] == "n/a"
    assert float(eager["ratio"].split()[0]) == 1 and float(tuned["seconds_per_step"]) > 0
    assert "commit" in table.read_text() and "| hodor-soft-coco | tuned | float32 |" in table.read_text()
    place = file.stem.removeprefix(f"{MEASURED}_")
    assert read_measured(tmp_path, "tiny", place)["hodor-soft-coco"].batch == int(tuned["batch"])
