"""Stamp of a training step of a second, and its command."""

import json
import sys
from pathlib import Path

from tests.narrow import NARROW

OPTIONS = NARROW | {"attention": "soft", "dropout": 0.1}
STAGE = {
    "kind": "images",
    "sources": [{"dataset": "coco", "split": "train2017"}],
    "steps": 12,
    "batch": 2,
    "learning_rate": 0.001,
    "warmup_steps": 2,
    "min_area": 60,
    "min_side": 4,
    "pixels": 4096,
    "workers": 0,
    "checkpoint_every": 3,
    "log_every": 2,
}


def make_stamp(seed: int = 0, stage: dict | None = None, **settings) -> dict:
    """Return a stamp as from `read_stamp`; keywords replace settings, those of `stage` one by one."""
    content = {
        "row": "a-row",
        "method": "hodor",
        "options": OPTIONS,
        "stage": STAGE | (stage or {}),
        "init": None,
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "datasets": ["coco"],
    } | settings
    return {
        "step": "train",
        "scale": "test",
        "row": "a-row",
        "seed": seed,
        "settings": content,
        "recipes": {},
        "sha256": json.dumps(content, sort_keys=True),
    }


def command(stamp: dict, data: Path, out: Path, *arguments: str) -> list[str]:
    """Return the command that trains in `out`; write its stamp beside that."""
    path = out.with_name(f"{out.name}.stamp.json")
    path.write_text(json.dumps({key: value for key, value in stamp.items() if key != "sha256"}))
    verb = ["-m", "hodor", "train", "--stamp", path, "--data", data, "--out", out, *arguments]
    return [sys.executable, *map(str, verb)]
