"""The comparison with published scores, on a generated site whose numbers are right but for one frame."""

import io
import json
import zipfile

import numpy as np
from PIL import Image

from hodor.scoring.jf import frame_scores


def write_masks(path, folder, masks, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, mask in enumerate(masks):
            file = io.BytesIO()
            Image.fromarray(mask * np.uint8(value)).save(file, "png")
            archive.writestr(f"{folder}/cow/{number:05d}.png", file.getvalue())


def test_frames_that_differ_are_counted(benchmark, tmp_path):
    random = np.random.default_rng(0)
    truth, found = (np.repeat(random.integers(0, 2, (6, 20, 6), dtype=np.uint8), 8, 2) for _ in range(2))
    scores = [frame_scores(a, b, 1)[0] for a, b in zip(truth, found, strict=True)][1:-1]
    published = {name: [f"{score[i]:.3f}" for score in scores] for i, name in enumerate("JF")}
    published["F"][2] = f"{float(published['F'][2]) + 0.002:.3f}"
    write_masks(tmp_path / "davis.zip", "DAVIS/Annotations/480p", truth, 255)
    write_masks(tmp_path / "results/2016/ours.zip", "ours", found, 255)
    for method in ("ours", "absent"):
        path = tmp_path / f"json_data/raw_eval/2016/{method}_davis.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"id": method, "cow": published}))
    text = benchmark("published_scores.py", f"--site {tmp_path} --davis {tmp_path / 'davis.zip'}")
    assert "| ours | 1 | 4 | 4 | 3 |" in text and "without masks at hand: absent" in text
