"""Trained rows on videos with several objects, and verdicts on the claims about them by the rule of config/claims.yaml.

    python benchmarks/several_objects.py real --mots FOLDER --moseg FOLDER [--root ROOT] [--rows ROWS] [--seeds 0 1 2] [--jobs 2]
    python benchmarks/several_objects.py pasted [--root ROOT] [--rows ROWS] [--seeds 0 1 2] [--jobs 2]

The poster's benchmark, DAVIS-2017, has several objects a sequence; DAVIS-2016 has one, and masking distinguishes objects.
Nothing is trained here, and no row of scale subset is trained on the videos. What is taken of them was fixed before any row
was scored.

real: videos of two public data sets, MOTSChallenge (--mots: its folder `train`, pedestrians, every frame annotated) and the
motion segmentation data set of Brox and Malik, ECCV 2010 (--moseg: `moseg_dataset`, also known as BMS-26, about every tenth
frame annotated):

- objects: those of the first frame that are as large as the published training asks for (2,000 pixels in 640x480), the five
  largest at most, which is the most that a sequence of DAVIS-2017 val has; only sequences with two or more;
- MOTSChallenge: 60 frames of each video from its first frame on, and 60 from the middle;
- BMS-26: the first 60 frames, without marple2 and marple10, whose regions are scenery (an archway, a wall).

pasted: the first 30 frames of each sequence of DAVIS-2016 val, with the object of the next one that fits pasted over it, in its
place and with its movement (`masking_study.py objects` does so on train). Two objects are the mean of DAVIS-2017 val.

Objects are given on the first frame, and scored on every later annotated frame. The score is the mean over objects; the
interval is over videos (all sequences of a video are resampled together) and seeds (docs/claims.md).

Scores of every object are kept in a CSV file, run by run: the same command continues there, and a run whose weights changed is
scored again.
"""

import argparse
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from harness import machine_slug, script_parser, table, write_result
from masking_study import PastedVideo, object_scores, paste
from pooled_claims import sample, score_cells, verdict_cells

from hodor import paths
from hodor.config.loading import load
from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import prepare_device
from hodor.errors import HodorError
from hodor.models.base import load_model
from hodor.provenance import commit, read_json, sha256_file, sha256_json, write_text_atomic
from hodor.scoring.statistics import Bootstrap

ROOT = Path(__file__).resolve().parent.parent
TABLE_1 = [f"hodor-{attention}-{stage}" for stage in ("coco", "cyclic") for attention in ("none", "hard", "soft")]
FRAMES = 60
LEAST_AREA = 2000 / (640 * 480)
MOST_OBJECTS = 5
SCENERY = ("marple2", "marple10")
PASTED_OBJECTS, PASTED_FRAMES = 2, 30
SMALL = "Small networks on small data sets: the verdicts are about this setting, not about the poster's."
TEXTS = {
    "real": "sequences of MOTSChallenge and BMS-26 as chosen in `benchmarks/several_objects.py`. Data sets: Voigtlaender et al.,"
    " MOTS, CVPR 2019 (its train part); Brox and Malik, Object Segmentation by Long Term Analysis of Point Trajectories, ECCV 2010.",
    "pasted": "DAVIS-2016 val with an object of another sequence pasted over each sequence, as in `benchmarks/several_objects.py`.",
}


@dataclass(frozen=True)
class Sequence(Video):
    """A part of a video with label images of its data set on some frames.

    Attributes:
        video: name of the video, which may have several sequences.
        suffix: of the label images.
        values: values of the given objects there, the largest object first.
    """

    video: str
    suffix: str
    values: tuple[int, ...]

    def label_path(self, frame: str) -> Path:
        return self.label_folder / f"{frame}{self.suffix}"

    def labels(self, frame: str) -> np.ndarray:
        """Return the masks of a frame, uint8 (H, W): object k has label k."""
        image = read_values(self.label_path(frame))
        labels = np.zeros(image.shape, np.uint8)
        for label, value in enumerate(self.values, 1):
            labels[image == value] = label
        return labels


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("kind", choices=TEXTS)
    parser.add_argument("--mots", type=Path, help="real: folder that holds images/ and instances/")
    parser.add_argument("--moseg", type=Path, help="real: folder that holds cars1/ and so on")
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--rows", default=",".join(TABLE_1))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="folder that holds runs/ and data/; seeds not there are left out"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    options = parser.parse_args()
    sequences: list[Video]
    if options.kind == "pasted":
        videos = load_videos(options.root / paths.data(options.scale), "davis2016", "val")
        sequences = [paste(PASTED_OBJECTS, at, videos, PASTED_FRAMES) for at in range(len(videos))]
    elif options.mots and options.moseg:
        sequences = [*mots_sequences(options.mots), *moseg_sequences(options.moseg)]
    else:
        parser.error("real needs --mots and --moseg")
    what = f"{options.scale}_{options.kind}-objects"
    scores = scored(options, options.out / f"{what}_{machine_slug()}.csv", sequences)
    write_result(what, page(options, sequences, scores), options.out)


def mots_sequences(folder: Path) -> Iterator[Sequence]:
    """Yield the sequences of MOTSChallenge; values of 2000 and more are pedestrians, 10000 what is ignored."""
    for images in sorted((folder / "images").glob("[0-9]*")):
        frames = sorted(path.stem for path in images.glob("*.jpg"))
        for start in (0, len(frames) // 2):
            part = frames[start : start + FRAMES]
            name, masks = f"mots-{images.name}-{part[0]}", folder / "instances" / images.name
            yield from with_objects(name, f"mots-{images.name}", images, part, masks, ".png", part, range(2000, 3000))


def moseg_sequences(folder: Path) -> Iterator[Sequence]:
    """Yield the sequences of BMS-26; <name>Def.dat lists the values of the regions and the frames that are annotated."""
    for definition in sorted(folder.glob("*/*Def.dat")):
        place, text = definition.parent, definition.read_text()
        frames = sorted(path.stem for path in place.glob("*.jpg"))
        listed = re.findall(r"Frame number:\s*(\d+)\s*File name:\s*(\S+)[.]pgm", text)
        if wrong := [name for i, name in listed if name not in frames[int(i) : int(i) + 1]]:
            raise HodorError(
                f"{place / wrong[0]}.pgm: {definition.name} lists it for another frame; copy the sequence again"
            )
        values = {int(value) for value in re.findall(r"Scale of region \d+:\s*(\d+)", text)} - {0}
        if place.name not in SCENERY:
            name, labelled = f"bms-{place.name}", [name for i, name in listed if int(i) < FRAMES]
            yield from with_objects(name, name, place, frames[:FRAMES], place, ".pgm", labelled, values)


def with_objects(
    name: str,
    video: str,
    frame_folder: Path,
    frames: list[str],
    label_folder: Path,
    suffix: str,
    labelled: list[str],
    known: Container[int],
) -> Iterator[Sequence]:
    """Yield the sequence with its objects; nothing if the first frame shows fewer than two, or no other is annotated.

    `known`: values of label images that can be objects.
    """
    image = read_values(label_folder / f"{frames[0]}{suffix}")
    areas = {int(value): np.count_nonzero(image == value) for value in np.unique(image) if int(value) in known}
    large = [value for value, area in areas.items() if area >= LEAST_AREA * image.size]
    if len(large) > 1 and len(labelled) > 1:
        values = tuple(sorted(large, key=lambda value: -areas[value])[:MOST_OBJECTS])
        first_seen = dict.fromkeys(range(1, len(values) + 1), frames[0])
        of_video = name, tuple(frames), frame_folder, label_folder, *image.shape, tuple(labelled), first_seen
        yield Sequence(*of_video, video, suffix, values)


def read_values(path: Path) -> np.ndarray:
    """Return the values of a label image (H, W), PNG of 16 bit or PGM; HodorError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise HodorError(f"{path}: missing or no label image; copy the data set again")
    return image


def scored(options: argparse.Namespace, path: Path, sequences: list[Video]) -> pd.DataFrame:
    """Score the runs that the CSV file at `path` lacks; return the lines of all that exist: those of `score_run`, model, commit.

    Raises:
        HodorError: a row has no run.
    """
    rows = options.rows.split(",")
    runs = [(row, seed, options.root / paths.run(options.scale, row, seed)) for seed in options.seeds for row in rows]
    runs = [run for run in runs if (run[2] / "train.json").is_file()]
    if without := sorted(set(rows) - {row for row, _, _ in runs}):
        raise HodorError(
            f"{options.root}/runs: no run of {', '.join(without)}; train the row, or leave it out of --rows"
        )
    models = {(row, seed): read_json(folder / "train.json")["model"] for row, seed, folder in runs}
    kept = dict(iter(pd.read_csv(path).groupby(["row", "seed"]))) if path.is_file() else {}
    kept = {
        run: lines for run, lines in kept.items() if lines["model"].iloc[0] == models.get(run, lines["model"].iloc[0])
    }
    tasks = [(options.scale, *run, sequences) for run in runs if run[:2] not in kept]
    with get_context("spawn").Pool(options.jobs) as pool:
        for lines in pool.imap_unordered(score_run, tasks):
            run = lines["row"].iloc[0], int(lines["seed"].iloc[0])
            kept[run] = lines.assign(model=models[run], commit=commit())
            write_text_atomic(
                path, pd.concat(kept.values()).to_csv(index=False, lineterminator="\n", float_format="%.6f")
            )
            print(f"{run[0]}, seed {run[1]}: {50 * (lines['J'] + lines['F']).mean():.1f}", flush=True)
    return pd.concat([kept[run] for run in sorted(models, key=lambda run: (rows.index(run[0]), run[1]))])


def score_run(task: tuple[str, str, int, Path, list[Video]]) -> pd.DataFrame:
    """Segment the sequences with a run and score them: row, seed, video, sequence, object, J, F (0 to 1)."""
    scale, row, seed, folder, sequences = task
    prepare_device("cpu", 1)
    cv2.setNumThreads(1)
    method = load_model(folder / "model.safetensors", load(ROOT / "config", {"scale": scale}).scale.inference)[1]
    lines = []
    for sequence in sequences:
        video = sequence.video if isinstance(sequence, Sequence) else sequence.name
        for id, (j, f) in zip(sequence.first_seen, object_scores(method, sequence), strict=True):
            of = {"row": row, "seed": seed, "video": video, "sequence": sequence.name, "object": id}
            lines.append(of | {"J": j, "F": f})
    return pd.DataFrame(lines)


def page(options: argparse.Namespace, sequences: list[Video], scores: pd.DataFrame) -> list[str]:
    claims = load(ROOT / "config", {"scale": options.scale}).claims
    # `sample` reads "<sequence>_<id>" and resamples sequences: here these are the videos.
    objects = scores["video"] + "_" + scores["sequence"] + "-" + scores["object"].astype(str)
    scores = scores.assign(object=objects, **{"J-Mean": scores["J"], "F-Mean": scores["F"]})
    samples = {row: sample(of) for row, of in scores.groupby("row", sort=False)}
    seeds = {row: sorted(of["seed"].unique()) for row, of in scores.groupby("row")}
    bootstrap = Bootstrap(**claims.bootstrap.model_dump())
    verdicts = []
    for claim in claims.claims.values():
        if claim.kind != "alphas-move" and set(claim.rows) <= samples.keys():
            cells = verdict_cells(claim.kind, *(samples[row] for row in claim.rows), claims)
            named = {"videos" if name == "sequences" else name: cell for name, cell in cells.items()}
            verdicts.append({"claim": claim.claim} | named)
    shown = [f"{of.name} ({len(of.first_seen)} objects, {len(of.frames)} frames)" for of in sequences]
    return [
        f"# {options.kind.capitalize()} videos with several objects: scale {options.scale}",
        "",
        "J&F in points, mean over objects, then over seeds, with 95 % intervals over videos and seeds, on"
        f" {TEXTS[options.kind]} {SMALL}",
        "",
        *table([{"row": row} | score_cells(found, seeds[row], bootstrap) for row, found in samples.items()]),
        "",
        *table(verdicts),
        "",
        f"- sequences: {', '.join(shown)}",
        f"- sha256 over their files: {digest(sequences)}",
        f"- runs scored at commit {', '.join(sorted(scores['commit'].unique()))}",
    ]


def digest(sequences: list[Video]) -> str:
    """Return the sha256 over names, values of objects, frames and masks of sequences."""
    found = []
    for of in sequences:
        parts = of.videos if isinstance(of, PastedVideo) else [of]
        files = [[*map(part.frame_path, part.frames), *map(part.label_path, part.labelled)] for part in parts]
        found.append([of.name, of.values if isinstance(of, Sequence) else [], *map(sha256_file, sum(files, []))])
    return sha256_json(found)


if __name__ == "__main__":
    try:
        main()
    except HodorError as error:
        raise SystemExit(str(error)) from None
