"""The ablation over seeds: a tiny one in two slices, what its page says, and the bundle of the real subset."""

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from hodor.config.datasets import ARCHIVES
from hodor.data.coco import load_coco
from hodor.data.davis import load_davis
from hodor.data.extract import extract_all
from hodor.data.images import read_rgb
from hodor.errors import HodorError
from hodor.scoring.statistics import Comparison


@pytest.fixture
def scripts(root, monkeypatch):
    """The folder of the scripts can be imported from, as when one of them is run."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))


def call(root, work, out, *flags):
    script = root / "benchmarks" / "subset_ablation.py"
    base = [sys.executable, script, "--work", work, "--out", out, "--cores", "2"]
    return subprocess.run([*base, *map(str, flags)], capture_output=True, text=True, cwd=root)


@pytest.mark.long
def test_slices_page_and_refusal(root, finished, tmp_path):
    """Three steps are those of scale tiny, whose first seed is made already."""
    work, out = tmp_path / "work", tmp_path / "out"
    rows = ("hodor-none-coco", "hodor-hard-coco", "hodor-soft-coco", "copy-first-mask")
    for folder in ("data/tiny", *(f"runs/tiny/{row}" for row in rows)):
        shutil.copytree(finished.path / folder, work / "steps3" / folder)
    flags = ["--scale", "tiny", "--steps", "3", "--seeds", "0", "1"]
    first = call(root, work, out, *flags, "--slice", "6")
    assert first.returncode == 3, first.stdout + first.stderr
    assert "Partial: still to come, 4 of all runs" in next(out.glob("*.md")).read_text()
    done = call(root, work, out)  # the plan of the first call
    assert done.returncode == 0, done.stdout + done.stderr
    assert "short: 8 of 8 runs are scored" in done.stdout
    (page,) = out.glob("tiny_seeds_*.md")
    text = re.sub(" +", " ", page.read_text())  # cells are padded
    assert "Partial" not in text and "8 lines" in text
    assert "**undecided**" in text and "2 sequences are fewer than 10" in text
    lines = list(csv.DictReader(page.with_suffix(".csv").open()))
    assert [(line["row"], line["seed"], line["steps"]) for line in lines if line["row"] == "hodor-hard-coco"] == [
        ("hodor-hard-coco", "0", "3"),
        ("hodor-hard-coco", "1", "3"),
    ]
    runs = work / "steps3" / "runs" / "tiny"
    scores = {}
    for line in lines:
        benchmark = runs / line["row"] / f"seed{line['seed']}" / "davis2017-val"
        overall = next(csv.DictReader((benchmark / "global.csv").open()))
        assert float(line["J&F"]) == pytest.approx(100 * float(overall["J&F-Mean"]), abs=1e-3)
        scores.setdefault(line["row"], []).append(float(line["J&F"]))
    difference = np.mean(scores["hodor-soft-coco"]) - np.mean(scores["copy-first-mask"])
    assert f"hodor-soft-coco less copy-first-mask | {difference:+.1f} |" in text
    assert re.search(r"Weight decay by itself would have moved the alphas by [\de.-]+ \(", text)
    assert re.search(r"!\[Loss over steps\]\((tiny_seeds_.*_short\.svg)\)", text)

    refused = call(root, work, out, "--steps", "8", "--page-only")
    assert refused.returncode == 1 and "steps is 3, not 8" in refused.stderr

    # A run that is gone is named as missing, and the others still compare over the seed that is left.
    (runs / "hodor-soft-coco" / "seed1" / "manifest.json").unlink()
    assert call(root, work, out, "--page-only").returncode == 0
    partial = re.sub(" +", " ", page.read_text())
    assert "**Partial: still to come, 1 of all runs: hodor-soft-coco seed 1.**" in partial
    assert re.search(r"hodor-soft-coco less hodor-none-coco \|[^|]*\|[^|]*\|[^|]*\| 1 \|", partial)
    assert re.search(r"hodor-none-coco less hodor-hard-coco \|[^|]*\|[^|]*\|[^|]*\| 2 \|", partial)

    # Scores that no longer are those of the masks are refused.
    (runs / "hodor-none-coco" / "seed0" / "davis2017-val" / "global.csv").write_text("J&F-Mean\n0.9\n")
    assert call(root, work, out, "--page-only").returncode != 0


@pytest.mark.parametrize(
    ("effect", "low", "high", "said"),
    [
        (
            3.0,
            0.5,
            6.0,
            "Soft scores higher than none: by 3.0 points, and the interval excludes 0 (above in 2 of 3 seeds",
        ),
        (-3.0, -6.0, -0.5, "Soft scores lower than none: by 3.0 points, and the interval excludes 0 (below in 1 of 3"),
        (
            3.0,
            -1.0,
            6.0,
            "No difference between Soft and none is shown: the mean is 3.0 points above, and the interval",
        ),
    ],
)
def test_sentences_follow_the_numbers(scripts, effect, low, high, said):
    from subset_page import sentence

    found = Comparison(effect, low, high, 0.9, 3, 6)
    told = sentence("Soft", "none", found, [1.0, 2.0, -1.0], [1.0, -1.0])
    assert told.startswith(said) and "no spread" not in told
    assert "in which no spread between trainings is" in sentence("Soft", "none", found, [1.0], [1.0, -1.0])


@pytest.mark.long
def test_bundle_of_the_real_subset(scripts, shared_data, tmp_path, monkeypatch):
    import subset_bundle

    bundle = tmp_path / "subset.tar"
    subset_bundle.write(shared_data, bundle)
    assert bundle.stat().st_size <= 60 * 2**20
    mirror = subset_bundle.unpack(bundle, tmp_path)
    assert "differ a little" in subset_bundle.about(mirror) and subset_bundle.about(shared_data) == ""
    record = json.loads((mirror / "bundle.json").read_text())
    assert set(record["made_from"]) == {
        f"{name}/{archive}" for name in ("coco", "coco-persons-small", "davis") for archive in ARCHIVES[name]
    }
    sets = {}
    for where in (shared_data, mirror):
        for name in ("coco", "davis"):
            sets[where, name] = tmp_path / f"{where.name}-{name}"
            extract_all([where / name / archive for archive in ARCHIVES[name]], sets[where, name])

    for split in ("train2017", "val2017"):
        ours, theirs = (load_coco(sets[where, "coco"], split).images for where in (mirror, shared_data))
        assert [image.id for image in ours] == [image.id for image in theirs]
        for small, image in zip(ours[::20], theirs[::20], strict=True):
            assert small.read().shape[0] * small.read().shape[1] <= 81920 * 1.01
            share = small.height * small.width / (image.height * image.width)
            for one, other in zip(small.objects, image.objects, strict=True):
                assert one.area == pytest.approx(other.area * share, rel=0.02, abs=1)
                area = other.mask(image.height, image.width).sum() * share
                if area > 400:
                    assert one.mask(small.height, small.width).sum() == pytest.approx(area, rel=0.1)

    ours, theirs = (load_davis(sets[where, "davis"], "val") for where in (mirror, shared_data))
    assert [(video.name, video.frames) for video in ours] == [(video.name, video.frames) for video in theirs]
    for packed, video in zip(ours, theirs, strict=True):
        frame = video.frames[-1]
        assert np.array_equal(packed.labels(frame), video.labels(frame))
        first, second = (read_rgb(v.frame_folder / f"{frame}.jpg").astype(float) for v in (packed, video))
        assert np.abs(first - second).mean() < 6
    assert {video.height for video in load_davis(sets[mirror, "davis"], "train")} == {240}

    monkeypatch.setattr(subset_bundle, "LIMIT_MIB", 20)
    with pytest.raises(HodorError, match="more than 20"):
        subset_bundle.write(mirror, tmp_path / "large.tar")
    assert not (tmp_path / "large.tar").exists()


def test_bundle_names_what_is_wrong(scripts, tmp_path):
    import subset_bundle

    with pytest.raises(HodorError, match="train2017.zip: no such file"):
        subset_bundle.write(tmp_path, tmp_path / "subset.tar")
    with zipfile.ZipFile(tmp_path / "no.tar", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(HodorError, match="no.tar: not a bundle"):
        subset_bundle.unpack(tmp_path / "no.tar", tmp_path)
