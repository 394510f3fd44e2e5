"""Imports go one way through the packages, and what starts often starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ORDER = (
    ("errors", "paths", "attention"),
    ("provenance", "locks"),
    ("config", "gpus"),
    ("stamps",),
    ("records",),
    ("workflow", "device", "data"),
    ("models",),
    ("training", "inference"),
    ("scoring",),
    ("reporting",),
    ("doctor",),
    ("cli",),
)
"""Packages and modules of hodor, from the bottom up. A module imports from the rows above its own, and from its own package."""

RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = {"torch", "cv2", "av", "numpy", "pandas", "scipy", "skimage", "matplotlib", "pycocotools", "dvc", "papermill"}


def imports(path: Path, package: str) -> set[str]:
    """Modules of hodor that a file imports anywhere, inside functions too; as written or with the name imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package.split(".")[: len(package.split(".")) + 1 - node.level], node.module or ""])
            base = (node.module or "") if node.level == 0 else base.rstrip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("hodor.")}


def upward(root: Path) -> list[str]:
    """Imports that point up, or to another package of the same row."""
    wrong = []
    for path in sorted((root / "hodor").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if len(parts) == 2 and parts[1].startswith("__"):
            continue
        for name in imports(path, ".".join(parts[:-1])):
            own, other = parts[1], name.split(".")[1]
            if other == "__version__" or own == other:
                continue
            if RANK[other] >= RANK[own]:
                wrong.append(f"{path.relative_to(root)} imports {name}")
    return wrong


def test_no_import_points_up(root):
    assert upward(root) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("hodor/config/schema.py", "from hodor.training.trainer import train"),
        ("hodor/data/coco.py", "def f():\n    import hodor.models.base"),
        ("hodor/scoring/jf.py", "from ..reporting import tables"),
        ("hodor/training/losses.py", "from hodor import inference"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, module, statement):
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(f"{statement}\n")
    assert len(upward(tmp_path)) == 1


LIGHT = HEAVY | {"pydantic", "yaml", "snakemake"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import hodor.cli.main; hodor.cli.main._parser()", LIGHT),
        ("import hodor.gpus; hodor.gpus.take()", LIGHT),
        (
            "import hodor.data.fetch, hodor.data.prepare, hodor.data.synthetic",
            {"torch", "pandas", "scipy", "matplotlib"},
        ),
        ("import hodor.scoring.score", {"torch", "pandas", "skimage", "segmetric", "davis2017", "matplotlib", "av"}),
        ("import hodor.training.trainer, hodor.inference.segment, hodor.inference.track_video", {"av", "snakemake"}),
        ("import hodor.reporting.claims, hodor.reporting.tables", {"torch", "scipy", "cv2", "matplotlib"}),
        ("import hodor.reporting.site", {"torch", "scipy", "skimage"}),
        # What the Snakefile does at every start.
        (
            "from pathlib import Path; from hodor.config.loading import load; from hodor.stamps import Stamps;"
            "from hodor.records import Records; import hodor.locks, hodor.workflow;"
            "Records(Stamps(load('config', {'scale': 'paper', 'rows': 'all'}), Path()))",
            HEAVY,
        ),
    ],
)
def test_imports_stay_light(root, code, absent):
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hodor" in loaded and not loaded & absent
