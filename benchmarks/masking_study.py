"""Why a masking gains or loses: trained rows of HODOR under changed masks, on clips, among several objects, over time.

    python benchmarks/masking_study.py variants|clips|objects|drift [--scale subset] [--rows ROWS] [--seeds 0 1]

Nothing is trained. The sequences are those of DAVIS-2016 train, on which no image row was trained and no claim is judged, or
with `--split val` those of its val, on which no row was trained. Several seeds are pooled.

variants: the rows segment the sequences as trained; with `perfect masks`, every earlier frame described with its annotated
mask instead of the prediction, so that no error of one frame reaches the next; with `first frame forgotten`, descriptors of
the last frames alone, as published (`keep_first: false`): only frames beyond the temporal window show a difference; with
`binary masks`, predicted masks being thresholded at 0.5 before they weight the attention; with `alpha x F`, all alphas of soft
masking multiplied by F.

clips: the training's loss on clips of one frame under the warps of the image stage, and of real frames some distance apart.
A masking that is better on the first and worse on the others has learned the warps rather than the objects.

objects: scores with the objects of other sequences pasted over each sequence, in their places and with their movement.
DAVIS-2016 has one object a sequence, the paper's benchmark two on average, and masking distinguishes objects.

drift: scores of finished runs on DAVIS-2016 val, by fifth of each sequence; nothing is segmented.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import scored_labels, script_parser, table, write_result

from hodor import paths
from hodor.config.loading import Config, load
from hodor.config.stages import StageOptions
from hodor.data import augmentations
from hodor.data.clip import Clip
from hodor.data.clips_image import warped_clip
from hodor.data.dataset import collate
from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import prepare_device
from hodor.errors import HodorError
from hodor.models.base import Method, load_model
from hodor.models.hodor.method import Hodor
from hodor.scoring.jf import frame_scores
from hodor.scoring.statistics import Objects, Sample, compare

ROOT = Path(__file__).resolve().parent.parent
ALPHA_FACTORS = (0.25, 0.5, 2.0)
FORGOTTEN = "first frame forgotten"
# They change only soft masking.
OF_SOFT = ("binary masks", *(f"alpha x {factor:g}" for factor in ALPHA_FACTORS))
VARIANTS = ("as trained", "perfect masks", FORGOTTEN, *OF_SOFT)
# From each frame of a clip to the next; 0: one frame, warped as in training.
DISTANCES = (0, 1, 5, 20)
OBJECTS = (1, 2, 3)

WEIGHTS = "model.safetensors"
COMPARED = "In brackets the difference to the first row with its 95 % interval over sequences and, where there are several, seeds."
Run = tuple[str, int]
"""Row and seed."""
Folders = dict[Run, Path]
Study = tuple[str, str, list[dict[str, object]]]
"""Title, explanation and table of a result."""


def main() -> None:
    studies = {"variants": variants, "clips": clips, "objects": objects, "drift": drift}
    parser = script_parser(__doc__, threads=torch.get_num_threads())
    parser.add_argument("study", choices=studies)
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--rows", default="hodor-none-coco,hodor-hard-coco,hodor-soft-coco")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds runs/ and data/")
    parser.add_argument("--split", choices=["train", "val"], default="train", help="of DAVIS-2016")
    parser.add_argument("--sequences", type=int, help="at most")
    parser.add_argument("--frames", type=int, default=12, help="variants, objects: of each sequence at most")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="variants: those to run")
    parser.add_argument("--clips", type=int, default=8, help="clips: number of each sequence")
    options = parser.parse_args()
    prepare_device("cpu", options.threads)
    folders = {
        (row, seed): options.root / paths.run(options.scale, row, seed)
        for row in options.rows.split(",")
        for seed in options.seeds
    }
    data = options.root / paths.data(options.scale)
    videos = [] if options.study == "drift" else load_videos(data, "davis2016", options.split)[: options.sequences]
    config = load(ROOT / "config", {"scale": options.scale})
    title, explanation, lines = studies[options.study](options, config, folders, videos)
    seeds = [str(seed) for seed in options.seeds]
    text = [f"# {title}: scale {options.scale}, seed {', '.join(seeds)}", "", explanation, "", *table(lines)]
    split = "val" if options.study == "drift" else options.split
    write_result(f"{options.scale}_masking-{options.study}-{split}-seed{'-'.join(seeds)}", text, options.out)


def variants(options: argparse.Namespace, config: Config, folders: Folders, videos: list[Video]) -> Study:
    videos = [replace(video, frames=video.frames[: options.frames]) for video in videos]
    lines = []
    for (row, seed), folder in folders.items():
        soft = load_model(folder / WEIGHTS)[1].options.attention == "soft"
        for variant in options.variants:
            if variant in OF_SOFT and not soft:
                continue
            kept = {"keep_first": False} if variant == FORGOTTEN else {}
            inference = config.scale.inference.model_copy(update=kept)
            method = load_model(folder / WEIGHTS, inference)[1]  # a variant changes it
            line = {"row": row, "seed": seed, "inference": variant} | measure(method, videos, variant)
            print(line, flush=True)
            lines.append(line)
    explanation = (
        f"{len(videos)} sequences of DAVIS-2016 {options.split}, the first {options.frames} frames of each, whole object of each."
        " J and F in points; uncertain: cells of stride 8 with a probability between 0.1 and 0.9, of those above 0.1; area: predicted"
        " over annotated pixels."
    )
    return "Maskings on held-out sequences", explanation, lines


def clips(options: argparse.Namespace, config: Config, folders: Folders, videos: list[Video]) -> Study:
    methods = {run: load_model(folder / WEIGHTS)[1] for run, folder in folders.items()}
    losses = held_out_losses(methods, videos, config.scale.stages["images"], options.clips)
    explanation = (
        f"Mean over {options.clips} clips of each of {len(videos)} sequences of DAVIS-2016 {options.split}, three frames a clip: one"
        f" frame under the warps of the image stage (`warped`), or frames `n apart`. {COMPARED}"
    )
    return "Losses on held-out clips", explanation, compared(losses, 3)


def objects(options: argparse.Namespace, config: Config, folders: Folders, videos: list[Video]) -> Study:
    by_number = {number: [paste(number, at, videos, options.frames) for at in range(len(videos))] for number in OBJECTS}
    scores = {}
    for run, folder in folders.items():
        method = load_model(folder / WEIGHTS, config.scale.inference)[1]
        scores[run] = scores_by_number(method, by_number)
        print(run, compared({run: scores[run]}, 1), flush=True)
    explanation = (
        f"J&F in points on {len(videos)} sequences of DAVIS-2016 {options.split}, the first {options.frames} frames of each, mean"
        " over objects: `1 object`, the sequence's own; otherwise those of other sequences are pasted over it. `own of n`: the"
        f" sequence's own object among n. {COMPARED}"
    )
    return "Scores by number of objects", explanation, compared(scores, 1)


def drift(options: argparse.Namespace, config: Config, folders: Folders, videos: list[Video]) -> Study:
    lines = [
        {"row": row, "seed": seed} | fifths(pd.read_csv(folder / "davis2016-val" / "per_frame.csv"))
        for (row, seed), folder in folders.items()
    ]
    return (
        "Scores over a sequence",
        "J&F in points by fifth of each sequence of DAVIS-2016 val, mean over sequences.",
        lines,
    )


def fifths(frames: pd.DataFrame) -> dict[str, float]:
    """Mean J&F in points of each fifth of the sequences, from the lines of per_frame.csv."""
    videos = frames.groupby(["sequence", "object"])
    place = (5 * videos.cumcount() // videos["frame"].transform("count")).rename("fifth")
    scores = frames[["J", "F"]].mean(axis=1).groupby([frames["sequence"], place]).mean().groupby("fifth").mean()
    return {f"fifth {fifth + 1}": 100 * score for fifth, score in scores.items()}


def held_out_losses(
    methods: dict[Run, Hodor], videos: list[Video], stage: StageOptions, clips: int
) -> dict[Run, dict[str, Objects]]:
    """Return for each run and kind of clip the losses by sequence and clip, none of sequences that are too short."""
    found: dict[Run, dict[str, Objects]] = {run: {} for run in methods}
    for distance in DISTANCES:
        losses: dict[Run, dict[tuple[str, str], float]] = {run: {} for run in methods}
        for number, video in enumerate(videos):
            for i in range(clips if len(video.frames) > distance * (stage.frames - 1) else 0):
                clip = held_out_clip(video, stage, distance, np.random.default_rng([number, distance, i]))
                for run, method in methods.items():
                    with torch.no_grad():
                        losses[run][video.name, str(i)] = method.loss(clip, i)["loss"].item()
        for run in methods:
            found[run][f"{distance} apart" if distance else "warped"] = losses[run]
    return found


def held_out_clip(video: Video, stage: StageOptions, distance: int, rng: np.random.Generator) -> Clip:
    """Return a clip of a video's whole object: of a drawn frame, warped, or of it and frames `distance` apart."""
    apart = [distance * i for i in range(stage.frames)] if distance else [0]
    start = int(rng.integers(len(video.frames) - apart[-1]))
    names = [video.frames[start + shift] for shift in apart]
    labels = [scored_labels(video, name) for name in names]

    def draw(attempt: int, least: float) -> list[np.ndarray]:
        if distance:
            return [np.eye(3)] * stage.frames
        return augmentations.image_warps(labels[0], 1, stage.frames, least, rng)

    sample = warped_clip([video.frame(name) for name in names], labels, draw, 1, stage, rng)
    return collate([sample], 1, stage.padding_multiple)


def compared(values: dict[Run, dict[str, Objects]], digits: int) -> list[dict[str, object]]:
    """Return for each row the mean of each kind, a loss or a score, and its difference to the first row's."""
    rows = list(dict.fromkeys(row for row, _ in values))
    lines: list[dict[str, object]] = [{"row": row} for row in rows]
    for kind in next(iter(values.values())):
        samples = {
            row: Sample({seed: of[kind] for (of_row, seed), of in values.items() if of_row == row}) for row in rows
        }
        for line in lines:
            sample = samples[line["row"]]
            line[kind] = f"{sample.scores().mean():.{digits}f}"
            if line["row"] != rows[0]:
                difference = compare(sample, samples[rows[0]])
                signed = [f"{value:+.{digits}f}" for value in (difference.effect, difference.low, difference.high)]
                line[kind] += f" ({signed[0]}, {signed[1]} to {signed[2]})"
    return lines


@dataclass(frozen=True)
class PastedVideo(Video):
    """The first of some videos with the objects of the others pasted over it; their objects have ids 1, 2 and so on."""

    videos: tuple[Video, ...]

    def masks(self, frame: str) -> Iterator[tuple[Video, str, np.ndarray]]:
        """Yield for each video, from the lowest up, its frame's name and its object's pixels, bool (H, W)."""
        for video in self.videos:
            name = video.frames[self.frames.index(frame)]
            yield video, name, scored_labels(video, name) > 0

    def frame(self, frame: str) -> np.ndarray:
        image = self.videos[0].frame(frame)
        for video, name, mask in list(self.masks(frame))[1:]:
            image[mask] = video.frame(name)[mask]
        return image

    def labels(self, frame: str) -> np.ndarray:
        labels = np.zeros((self.height, self.width), np.uint8)
        for id, (_, _, mask) in enumerate(self.masks(frame), 1):
            labels[mask] = id
        return labels


def paste(number: int, at: int, videos: list[Video], frames: int) -> PastedVideo:
    """Return video `at` with the objects of the next `number` - 1 that hide no object by more than half at first.

    Raises:
        HodorError: fewer such videos of its size.
    """
    found = pasted([videos[at]], frames)
    for other in [*videos[at + 1 :], *videos[:at]]:
        if len(found.videos) == number:
            return found
        if (other.height, other.width) == (found.height, found.width):
            candidate = pasted([*found.videos, other], frames)
            alone, shown = (
                np.bincount(of.labels(of.frames[0]).ravel(), minlength=256)[1:] for of in (found, candidate)
            )
            if all(2 * shown >= alone):
                found = candidate
    if len(found.videos) < number:
        raise HodorError(f"{found.name}: fewer than {number - 1} other sequences fit over it")
    return found


def pasted(videos: list[Video], frames: int) -> PastedVideo:
    """Return videos pasted over the first, at most `frames` frames long."""
    own = videos[0]
    seen = dict.fromkeys(range(1, len(videos) + 1), own.frames[0])
    length = min(frames, *(len(video.frames) for video in videos))
    return PastedVideo(**vars(own) | {"frames": own.frames[:length], "first_seen": seen}, videos=tuple(videos))


def scores_by_number(method: Hodor, by_number: dict[int, list[PastedVideo]]) -> dict[str, Objects]:
    """Return J&F in points of the objects of videos that are given by their number of objects."""
    found: dict[str, Objects] = {}
    for number, videos in by_number.items():
        scores = {}
        for video in videos:
            of_ids = zip(video.first_seen, object_scores(method, video), strict=True)
            scores |= {(video.name, str(id)): 100 * score.mean() for id, score in of_ids}
        found[f"{number} object{'s' if number > 1 else ''}"] = scores
        if number > 1:
            found[f"own of {number}"] = {key: score for key, score in scores.items() if key[1] == "1"}
    return found


def object_scores(method: Method, video: Video) -> np.ndarray:
    """Return J and F (0 to 1) of each object of a video, float (objects, 2), the mean over its annotated frames."""
    ids = list(video.first_seen)
    pairs = segment(method, video, ids, perfect=False)
    return np.mean([frame_scores(truth, found, ids) for truth, found in pairs], axis=0)


def measure(method: Hodor, videos: list[Video], variant: str) -> dict[str, float]:
    """Mean J and F in points, and how the predicted masks look."""
    cells: list[float] = []
    encode = method.network.encode

    def encode_changed(features, objects, backgrounds):
        cells.append(((objects > 0.1) & (objects < 0.9)).sum().item() / max(1, (objects > 0.1).sum().item()))
        if variant == "binary masks":
            objects, backgrounds = (objects > 0.5).float(), (backgrounds > 0.5).float()
        return encode(features, objects, backgrounds)

    method.network.encode = encode_changed
    if variant.startswith("alpha x "):
        for alpha in method.alpha_parameters():
            alpha.data *= float(variant.rpartition(" ")[2])
    scores, areas = [], []
    for video in videos:
        ids = sorted(video.first_seen)
        pairs = list(segment(method, video, ids, perfect=variant == "perfect masks"))
        scores.append(np.mean([frame_scores(truth, found, ids) for truth, found in pairs], axis=(0, 1)))
        areas += [np.count_nonzero(found) / max(1, np.count_nonzero(truth)) for truth, found in pairs]
    j, f = 100 * np.mean(scores, axis=0)
    return {"J&F": (j + f) / 2, "J": j, "F": f, "uncertain": float(np.mean(cells)), "area": float(np.median(areas))}


def segment(method: Method, video: Video, ids: list[int], *, perfect: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield annotated and predicted labels of each annotated frame but the first.

    `perfect`: earlier frames, all of which are annotated, are described with their annotated masks.
    """

    def start(name: str) -> Any:
        labels = scored_labels(video, name)
        return method.start(video.frame(name), {id: labels == id for id in ids})

    state = start(video.frames[0])
    for name in video.frames[1:]:
        found = np.asarray(method.step(state, video.frame(name)).argmax(0), np.uint8)
        if perfect:
            state.history[-1] = start(name).history[-1]
        if name in video.labelled:
            yield scored_labels(video, name), found


if __name__ == "__main__":
    main()
