"""The profile of a memory method's frame, at a tiny size: every part is there, and the parts are most of the frame."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_part_is_timed(tmp_path):
    size = "--methods stcn stm --small --height 48 --width 64 --objects 2 --frames 3 --threads 1".split()
    command = [sys.executable, ROOT / "benchmarks/memory_frame.py", *size, "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("memory_frame_*.md")
    parts = defaultdict(dict)
    for line in result.read_text().splitlines():
        if line.startswith(("| stcn", "| stm")):
            method, part, _, share = (x.strip() for x in line.strip("|").split("|"))
            parts[method][part] = share
    for timed in parts.values():
        assert set(timed) == {
            "frame", "encode the frame", "read the memory", "decode", "encode what is remembered"
        }  # fmt: skip
        assert sum(int(share.strip("%")) for share in timed.values() if share) <= 104
    assert set(parts) == {"stcn", "stm"}
