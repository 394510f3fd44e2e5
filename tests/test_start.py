"""What starts often starts light: every job pays the command line, every call of Snakemake what the Snakefile reads."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "cv2", "av", "numpy", "pandas", "scipy", "skimage", "matplotlib", "pycocotools", "dvc", "papermill"}


@pytest.mark.parametrize(
    ("what", "besides"),
    [
        ("import hodor.cli; hodor.cli._parser()", {"pydantic", "yaml", "snakemake"}),
        ("import hodor.gpus; hodor.gpus.take()", {"pydantic", "yaml", "snakemake"}),
        ("import hodor.data.scratch", {"pydantic", "yaml", "snakemake"}),
        # All that the Snakefile does at every start, rows and methods of the paper included.
        (
            "from pathlib import Path; import hodor.released, hodor.records, hodor.stamps, hodor.config, hodor.locks;"
            "config = hodor.config.load('config', {'scale': 'paper', 'rows': 'all'});"
            "hodor.records.Records(hodor.stamps.Stamps(config, Path()))",
            set(),
        ),
    ],
)
def test_imports_stay_light(root, what, besides):
    code = f"{what}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hodor" in loaded and not loaded & (HEAVY | besides)
