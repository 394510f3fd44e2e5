"""benchmarks/pipeline_cost.py, on the smallest table."""

import re
import subprocess
import sys


def test_it_times_every_verb_and_a_workflow_with_nothing_to_do(root, tmp_path):
    command = [sys.executable, "benchmarks/pipeline_cost.py", "--rows", "copy-first-mask", "--rounds", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("pipeline-cost_*.md")
    text = path.read_text()
    verbs = subprocess.run([sys.executable, "-m", "hodor", "--help"], cwd=root, capture_output=True, text=True).stdout
    named = re.findall(r"^    (\w+)  ", verbs, re.MULTILINE)
    assert len(named) >= 16 and all(
        re.search(rf"^\| {verb} \|( [\d.]+ \|){{4}}$", text, re.MULTILINE) for verb in named
    )
    assert re.search(r"^\| a DAG of \d+ jobs \| [\d.]+ \| [\d.]+ \|$", text, re.MULTILINE) and "- commit: " in text
