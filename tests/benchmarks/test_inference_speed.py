"""The benchmark of HODOR's inference runs at a small size, finds equal masks, and names every part of a frame."""

import re
import subprocess
import sys


def run(root, tmp_path, *flags) -> str:
    small = "--small --height 48 --width 80 --short-side 96 --objects 2 --rounds 1 --threads 1 --device cpu".split()
    script = root / "benchmarks" / "inference_speed.py"
    done = subprocess.run(
        [sys.executable, script, *small, *flags, "--out", tmp_path], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    return path.read_text()


def test_masks_are_equal(root, tmp_path):
    text = run(root, tmp_path)
    assert float(re.search(r"least of a frame ([\d.]+)", text)[1]) >= 0.999
    assert float(re.search(r"ours is faster: ([\d.]+)", text)[1]) > 0
    assert "| baseline |" in text and "| ours |" in text and "- commit: " in text


def test_the_profile_names_every_part(root, tmp_path):
    text = run(root, tmp_path, "--profile")
    lines = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [name for name, _, _ in lines][:4] == ["backbone", "pyramid", "encoder", "decoder"]
    assert len(lines) == 12 and all(int(a) < 60_000 for _, *times in lines for a in times)
