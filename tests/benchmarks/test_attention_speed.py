"""The benchmark of the attention runs, at a small size, and writes what it found."""

import re
import subprocess
import sys


def test_a_small_size(root, tmp_path):
    script = root / "benchmarks" / "attention_speed.py"
    size = ["--queries", "3", "9", "--pixels", "500", "--channels", "32", "--rounds", "2", "--no-memory"]
    done = subprocess.run(
        [sys.executable, script, *size, "--device", "cpu", "--out", tmp_path], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"attention_speed_[a-z0-9-]+-\d+core\.md", path.name)
    text = path.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| [39] ", line)]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        ("| 3", "forward", "folded |"),
        ("| 3", "forward and backward", "folded |"),
        ("| 9", "forward", "plain |"),
        ("| 9", "forward and backward", "plain |"),
    ]
    assert all(float(row[7].split()[0]) > 0 for row in rows)
    assert "second call: plain yes, folded yes, auto yes, sdpa yes" in text
    worst = re.search(r"in float32: (.*)", text)[1]
    assert max(float(part.split()[-1]) for part in worst.split(", ")) < 1e-3
    assert "commit: " in text
