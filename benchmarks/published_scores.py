"""Compare our J and F with the published ones, frame by frame, for the methods whose masks DAVIS publishes.

    git clone https://github.com/davisvideochallenge/davisvideochallenge.github.io SITE
    python benchmarks/published_scores.py --site SITE --davis data/subset/archives/davis2016/DAVIS-data.zip

The site holds the masks of methods on DAVIS-2016 val (`results/2016/*.zip`) and their J and F of every frame
(`json_data/raw_eval/2016`), computed by the first official toolkit and rounded to three decimals. The first and the last
frame of a sequence are not scored. Methods whose archive is absent are listed as such.
"""

import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from harness import script_parser, write_result
from PIL import Image

from hodor.scoring.jf import frame_scores

# Half of the last published decimal, and what a value printed in binary floating point may be off.
ROUNDING = 0.0005 + 1e-9


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--site", type=Path, required=True, help="checkout of davisvideochallenge.github.io")
    parser.add_argument("--davis", type=Path, required=True, help="DAVIS-data.zip of DAVIS-2016")
    options = parser.parse_args()
    ground_truth = masks_of(options.davis, below="Annotations/480p")
    rows, absent = [], []
    for path in sorted((options.site / "json_data" / "raw_eval" / "2016").glob("*_davis.json")):
        method = path.stem.removesuffix("_davis")
        archive = options.site / "results" / "2016" / f"{method}.zip"
        if not archive.is_file():
            absent.append(method)
            continue
        published = {name: value for name, value in json.loads(path.read_text()).items() if isinstance(value, dict)}
        rows.append((method, *compare(published, masks_of(archive), ground_truth)))
        print(*rows[-1], flush=True)
    write_result("published-scores_davis-2016", lines(rows, absent), options.out)


def masks_of(path: Path, below: str = "") -> dict[str, dict[int, bytes]]:
    """Return the PNG files of an archive by sequence and frame number, wherever in it the sequences' folders are."""
    found: dict[str, dict[int, bytes]] = defaultdict(dict)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            file = PurePosixPath(name)
            if file.suffix == ".png" and "__MACOSX" not in file.parts and below in name:
                found[file.parent.name][int(file.stem)] = archive.read(name)
    return found


def compare(
    published: dict[str, dict[str, list[str]]],
    predictions: dict[str, dict[int, bytes]],
    ground_truth: dict[str, dict[int, bytes]],
) -> tuple[int, int, int, int, float]:
    """Score every published frame.

    Returns:
        Sequences, frames, frames whose J and whose F equal the published value, and the largest difference.
    """
    frames, equal, largest = 0, {"J": 0, "F": 0}, 0.0
    for sequence, values in published.items():
        scored = sorted(ground_truth[sequence])[1:-1]
        for place, number in enumerate(scored):
            scores = frame_scores(decode(ground_truth[sequence][number]), decode(predictions[sequence][number]), 1)[0]
            for measure, ours in zip("JF", scores, strict=True):
                difference = abs(ours - float(values[measure][place]))
                equal[measure] += difference <= ROUNDING
                largest = max(largest, difference)
        frames += len(scored)
    return len(published), frames, equal["J"], equal["F"], largest


def decode(png: bytes) -> np.ndarray:
    """Return a mask as uint8 (H, W), 1 for the object: any label but 0, whatever the file's bit depth and palette."""
    image = Image.open(io.BytesIO(png))
    labels = np.asarray(image.convert("L") if image.mode not in ("P", "L", "1") else image)
    return (labels != 0).astype(np.uint8)


def lines(rows: list[tuple[str, int, int, int, int, float]], absent: list[str]) -> list[str]:
    """The table."""
    frames, j, f = (sum(row[column] for row in rows) for column in (2, 3, 4))
    return [
        "# J and F of published masks against the published values: DAVIS-2016 val",
        "",
        f"{len(rows)} methods, {frames:,} frames: J equal in {j:,}, F in {f:,}, to the three published decimals.",
        "",
        "| method | sequences | frames | J equal | F equal | largest difference |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {row[0]} | {row[1]} | {row[2]} | {row[3]} | {row[4]} | {row[5]:.6f} |" for row in rows),
        "",
        f"Published values without masks at hand: {', '.join(absent) or 'none'}.",
    ]


if __name__ == "__main__":
    main()
