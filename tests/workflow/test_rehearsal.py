"""Scale paper from the archives to the last page, on a CPU: everything is published but the data, which are few and made up.

`make rehearse` runs it on two cores with 24 GiB. Networks, frame sizes, stages, micro-batches, workers, and inference settings
are those of scale paper; a training has two steps of one clip (of two from static images), a benchmark one short video.
"""

import csv
import json
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from hodor.config.datasets import RELEASED, WEIGHT_SETS, GeneratedOptions
from hodor.config.loading import load
from hodor.data.synthetic import generate
from hodor.models.checkpoints.releases import FORMATS
from hodor.provenance import sha256_file
from tests import checkouts
from tests.data.datasets import SCENE, WRITERS, pack
from tests.data.hostile_server import hostile_server
from tests.faults.runs import Run
from tests.golden.inputs import CASES, original

# Stage -> clips in a batch.
STAGES = {"images": 1, "cyclic": 1, "cyclic-holdout": 1, "dense": 1, "static-stm": 2, "static-kmn": 2, "static-stcn": 2}
SHORT = {"steps": 2, "checkpoint_every": 1, "log_every": 1}
OVERRIDES = {"device": "cpu", "threads": 2}
OVERRIDES |= {f"stages.{stage}.{key}": value for stage in STAGES for key, value in SHORT.items()}
OVERRIDES |= {f"stages.{stage}.batch": batch for stage, batch in STAGES.items()}
OVERRIDES |= {f"stages.{stage}.decay_steps": [1] for stage in ("images", "static-stcn")}
TARGETS = [f"results/{table}_table.csv" for table in ("ablation", "comparison", "extended")]
TARGETS += [
    "results/costs.csv",
    "results/claims.json",
    "results/released_weights.csv",
    "submissions",
    "reports/index.html",
]
SIZES = GeneratedOptions(
    coco_train=12,
    coco_val=1,
    davis_train=2,
    davis_val=1,
    davis_test_dev=1,
    youtube_train=5,
    youtube_valid=1,
    coco_sizes=[(480, 640), (640, 480)],
    davis_size=(480, 854),
    youtube_sizes=[(720, 1280)],
    davis_frames=3,
    youtube_frames=3,
    objects=(1, 2),
)
CHECKPOINTS = {
    "mask_rcnn_swin_tiny_patch4_window7.pth": "swin-detection",
    "resnet50-0676ba61.pth": "resnet50",
    "resnet18-f37072fd.pth": "resnet18",
    "static_image.pth": "hodor",
    "video_sparse.pth": "hodor",
    "video_dense.pth": "hodor",
    "STM_weights.pth": "stm",
    "stcn_s0.pth": "stcn",
}
WRAPPERS = {"swin-detection": "state_dict", "hodor": "model"}


def write_archives(mirror: Path, folder: Path) -> None:
    """Write `mirror/<dataset>/<archive>` for every data set and checkpoint of scale paper."""
    for dataset in ("coco", "davis", "davis2016", "youtube-vos"):
        generate(dataset, SIZES, mirror / dataset)
    (mirror / "youtube-vos" / "valid_truth.zip").unlink()
    (mirror / "youtube-vos-2018").mkdir()
    shutil.copy(mirror / "youtube-vos" / "valid.zip", mirror / "youtube-vos-2018")
    _keep_first_masks(mirror / "davis" / "DAVIS-2017-test-dev-480p.zip")
    scene = SCENE.repeat(16, 0).repeat(16, 1)
    for dataset, write in WRITERS.items():
        arguments = (scene, scene) if dataset == "voc2012" else ()
        write(folder / dataset, *arguments, **({} if arguments else {"labels": scene}))
        pack(folder / dataset, dataset, mirror / dataset)
    for dataset, files in (WEIGHT_SETS | RELEASED).items():
        (mirror / dataset).mkdir()
        for file in files:
            if kind := CHECKPOINTS.get(file):
                format = FORMATS[CASES[kind][0]]
                entries = {
                    name: value if name.removeprefix(format.prefix) in format.constants else _small(value)
                    for name, value in original(kind).items()
                }
                content = {WRAPPERS[kind]: entries} if kind in WRAPPERS else entries
                torch.save(content, mirror / dataset / file)


def _small(value: torch.Tensor) -> torch.Tensor:
    """Centre random weights between 0 and 1 and make them small, so that a network of them has finite outputs."""
    return 0.02 * (value - 0.5) if value.is_floating_point() and value.ndim > 1 else value


def _keep_first_masks(archive: Path) -> None:
    """Leave only the masks of first frames, as officially; the generated test-dev has all."""
    with zipfile.ZipFile(archive) as full:
        kept = [
            (i, full.read(i)) for i in full.infolist() if "/Annotations/" not in i.filename or "/00000." in i.filename
        ]
    with zipfile.ZipFile(archive, "w") as first:
        for info, content in kept:
            first.writestr(info, content)


def serve(checkout, mirror: Path, state) -> list[Path]:
    """Enter the server's addresses and checksums into datasets.csv; put what needs a log-in where a person would."""
    table = checkout.path / "config" / "datasets.csv"
    lines = list(csv.DictReader(table.open(newline="")))
    by_hand = []
    for line in lines:
        file = mirror / line["dataset"] / line["archive"]
        if line["edition"] != "official" or not file.is_file():
            continue
        line |= {"size_bytes": file.stat().st_size if line["size_bytes"] else "", "md5": ""}
        line["sha256"] = sha256_file(file) if line["sha256"] else ""
        if line["log_in"] == "yes":
            folder = "weights" if line["dataset"] in RELEASED else "paper/archives"
            target = checkout.path / "data" / folder / line["dataset"] / line["archive"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            by_hand.append(target)
        else:
            name = f"{line['dataset']}/{line['archive']}"
            state.files[name], line["address"] = file.read_bytes(), f"{state.address}/{name}"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return by_hand


@pytest.mark.long
def test_scale_paper_runs_to_its_last_file(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their core to the others
    monkeypatch.setattr(checkouts, "LIMIT_S", 7200)
    checkout, mirror = fresh(), tmp_path / "mirror"
    write_archives(mirror, tmp_path / "made")
    # Numbers of images are the only official property that the archives lack.
    checkout.edit("hodor/data/prepare.py", "\nOFFICIAL_COUNTS = {\n", "\nOFFICIAL_COUNTS = {}\n_PUBLISHED_COUNTS = {\n")
    config = {"scale": "paper", "rows": ["all"], "overrides": OVERRIDES, "execution": {"micro_batch": 1}}
    (checkout.path / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    with hostile_server() as state:
        by_hand = serve(checkout, mirror, state)
        assert {path.name for path in by_hand} >= {"train.zip", "valid.zip", "static_data.zip"}
        checkout.run("hodor", "fetch", "weights")
        settings = load(checkout.path / "config", {}, checkout.path)
        assert {row for row, entry in settings.rows.items() if entry.weights} <= set(settings.selected)

        soft = "runs/paper/hodor-soft-coco/seed0/model.safetensors"
        run = Run(checkout, "snakemake", "--cores", "2", "--", soft)
        assert run.wait_for("hodor-soft-coco seed 0: step 1 of 2", limit_s=1800), run.output
        saved = (checkout.path / soft).with_name("checkpoints") / "step-00000001.sha256"  # written last
        while not saved.is_file() and not run.ended:
            time.sleep(0.05)
        run.kill()
        # Two segmentations at a time: half of each is the start of Python, which has one thread.
        output = checkout.snakemake("--set-threads", "segment=1", "--", *TARGETS)
    assert "hodor-soft-coco seed 0: continues after step 1" in output
    assert checkout.due("--", *TARGETS) == {}

    locks = json.loads((checkout.path / "config/locks/official.json").read_text())
    assert {"davis/DAVIS-2017-test-dev-480p.zip", "youtube-vos/train.zip"} <= locks.keys()
    scored = {(line["row"], line["benchmark"]): line["J&F"] for line in checkout.table("results/extended_table.csv")}
    scored |= {(line["row"], line["benchmark"]): line["J&F"] for line in checkout.table("results/ablation_table.csv")}
    assert {row for row, _ in scored} >= set(settings.selected) - {"stm", "kmn", "stcn", "dmn-aoa"}
    for (row, benchmark), value in scored.items():
        if benchmark in settings.secret():
            assert value.startswith("server closed"), (row, benchmark, value)
        else:
            assert value in ("not run", "trained on it") or 0 <= float(value) <= 100, (row, benchmark, value)
    for line in checkout.table("results/comparison_table.csv"):
        assert 0 <= float(line["davis2017-val_J&F"]) <= 100
    for row in settings.selected:
        for benchmark in settings.secret():
            archive = checkout.path / f"results/paper/submissions/{row}/seed0/{benchmark}.zip"
            assert zipfile.ZipFile(archive).testzip() is None
    memory = {line["row"]: line for line in checkout.table("results/costs.csv")}
    trained = {row for row in settings.selected if settings.stage(row)}
    assert all(float(memory[row]["training_peak_mib"]) > 1000 for row in trained)
    print(*(f"{row}: {memory[row]['training_peak_mib']} MiB while training" for row in sorted(trained)), sep="\n")
    assert "server closed" in (checkout.path / "reports/index.html").read_text()
