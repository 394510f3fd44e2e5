"""The benchmark of the scoring speed runs, on a small set, and finds the numbers equal."""

import re
import runpy
import subprocess
import sys


def test_a_small_set(root, tmp_path):
    script = root / "benchmarks" / "score_speed.py"
    flags = ["--sequences", "3", "--frames", "8", "--repeats", "1", "--out", tmp_path]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"part_score-speed_[a-z0-9-]+-\d+core\.md", path.name), "no whole set: another name"
    text = path.read_text()
    assert "3 sequences, 5 objects, 24 frames of 854 x 480" in text
    assert f"equal to the last bit: {2 * 5 * 6} numbers" in text
    assert re.search(r"ratio: [\d.]+", text) and "commit: " in text and "esdft-segmetric 0.1.0" in text
    speed = runpy.run_path(str(script))
    names, frames, objects = zip(*speed["plan"](30, None), strict=True)
    assert (len(set(names)), sum(frames), sum(objects)) == (30, 1999, 61)
