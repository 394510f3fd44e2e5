"""benchmarks/pipeline_cost.py, on the smallest table."""

import re
import runpy
import subprocess
import sys

import pytest

from hodor.cli.main import main


@pytest.mark.long
def test_it_times_verbs_and_a_workflow_with_nothing_to_do(root, tmp_path):
    command = [sys.executable, "benchmarks/pipeline_cost.py", "--rows", "copy-first-mask", "--rounds", "1"]
    command += ["--verbs", "score", "claims", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("pipeline-cost_*.md")
    text = path.read_text()
    timed = re.findall(r"^\| (\w+) \|(?: [\d.]+ \|){4}$", text, re.MULTILINE)
    assert timed == ["score", "claims"]
    assert re.search(r"^\| a DAG of \d+ jobs \| [\d.]+ \| [\d.]+ \|$", text, re.MULTILINE) and "- commit: " in text


def test_it_knows_every_verb(root, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    with pytest.raises(SystemExit):
        main(["--help"])
    named = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert len(named) >= 14 and set(runpy.run_path(str(root / "benchmarks/pipeline_cost.py"))["VERBS"]) == set(named)
