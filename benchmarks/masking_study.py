"""Why a masking gains or loses: trained rows of HODOR segment held-out sequences under changed masks.

    python benchmarks/masking_study.py --scale subset --rows hodor-none-coco,hodor-hard-coco,hodor-soft-coco [--frames 12]
    python benchmarks/masking_study.py --clips
    python benchmarks/masking_study.py --drift [--rows ROWS]

Nothing is trained. The sequences are those of DAVIS-2016 train, on which no image row was trained and no claim is judged.
Variants of inference: as trained; `perfect masks`, every earlier frame is described with its annotated mask instead of the
prediction, so that no error of one frame reaches the next; `binary masks`, predicted masks are thresholded at 0.5 before
they weight the attention; `alpha x F`, all alphas of soft masking multiplied by F.

`--clips` computes the training's loss on clips of these sequences: of one frame under the warps of the image stage, and of
real frames some distance apart. A masking that is better on the first and worse on the others has learned the warps rather
than the objects.

`--drift` segments nothing: it shows the scores of finished runs on DAVIS-2016 val by fifth of each sequence.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness import RESULTS, scored_labels, table, write_result

from hodor.config.loading import load
from hodor.config.stages import StageOptions
from hodor.data import augmentations
from hodor.data.clip import Clip
from hodor.data.clips_image import warped_clip
from hodor.data.dataset import collate
from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import prepare_device
from hodor.models.base import load_model
from hodor.models.hodor.method import Hodor, State
from hodor.scoring.jf import frame_scores
from hodor.scoring.statistics import Bootstrap, Sample, compare

ROOT = Path(__file__).resolve().parent.parent
ALPHA_FACTORS = (0.25, 0.5, 2.0)
# The last four change what only soft masking has.
VARIANTS = ("as trained", "perfect masks", "binary masks", *(f"alpha x {factor:g}" for factor in ALPHA_FACTORS))
# From each frame of a clip to the next; 0: one frame, warped as in training.
DISTANCES = (0, 1, 5, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--rows", default="hodor-none-coco,hodor-hard-coco,hodor-soft-coco")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds runs/ and data/")
    parser.add_argument("--frames", type=int, default=12, help="of each sequence at most")
    parser.add_argument("--sequences", type=int, help="at most")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="of inference")
    parser.add_argument("--clips", type=int, nargs="?", const=8, help="number of clips of each sequence; default: 8")
    parser.add_argument("--drift", action="store_true", help="scores of finished runs by fifth of each sequence")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.drift:
        runs = options.root / "runs" / options.scale
        lines = [
            {"row": row} | fifths(pd.read_csv(runs / row / f"seed{options.seed}" / "davis2016-val" / "per_frame.csv"))
            for row in options.rows.split(",")
        ]
        text = [f"# Scores over a sequence: scale {options.scale}, seed {options.seed}", ""]
        text += ["J&F in points by fifth of each sequence of DAVIS-2016 val, mean over sequences.", "", *table(lines)]
        write_result(f"{options.scale}_masking-drift", text, options.out)
        return
    prepare_device("cpu", options.threads)
    config = load(ROOT / "config", {"scale": options.scale})
    videos = load_videos(options.root / "data" / options.scale, "davis2016", "train")[: options.sequences]
    weights = {
        row: options.root / "runs" / options.scale / row / f"seed{options.seed}" / "model.safetensors"
        for row in options.rows.split(",")
    }
    if options.clips:
        methods = {row: load_model(path)[1] for row, path in weights.items()}
        losses = held_out_losses(methods, videos, config.scale.stages["images"], options.clips)
        lines = [{"row": row} | compared(of, losses[next(iter(weights))]) for row, of in losses.items()]
        text = [f"# Losses on held-out clips: scale {options.scale}, seed {options.seed}", ""]
        text += [
            f"Mean over {options.clips} clips of each of {len(videos)} sequences of DAVIS-2016 train, three frames a clip: one "
            "frame under the warps of the image stage (`warped`), or frames `n apart`. In brackets the difference to the first "
            "row with its 95 % interval over sequences.",
            "",
            *table(lines),
        ]
        write_result(f"{options.scale}_masking-clips", text, options.out)
        return
    videos = [replace(video, frames=video.frames[: options.frames]) for video in videos]
    lines = []
    for row, path in weights.items():
        soft = load_model(path)[1].options.attention == "soft"
        for variant in options.variants:
            if variant in VARIANTS[2:] and not soft:
                continue
            method = load_model(path, config.scale.inference)[1]  # a variant changes it
            line = {"row": row, "inference": variant} | measure(method, videos, variant)
            print(line, flush=True)
            lines.append(line)
    text = [
        f"# Maskings on held-out sequences: scale {options.scale}, seed {options.seed}",
        "",
        f"{len(videos)} sequences of DAVIS-2016 train, the first {options.frames} frames of each, whole object of each. J and F"
        " in points; uncertain: cells of stride 8 with a probability between 0.1 and 0.9, of those above 0.1; area: predicted"
        " over annotated pixels.",
        "",
        *table(lines),
    ]
    write_result(f"{options.scale}_masking-study", text, options.out)


def fifths(frames: pd.DataFrame) -> dict[str, float]:
    """Mean J&F in points of each fifth of the sequences, from the lines of per_frame.csv."""
    videos = frames.groupby(["sequence", "object"])
    place = (5 * videos.cumcount() // videos["frame"].transform("count")).rename("fifth")
    scores = frames[["J", "F"]].mean(axis=1).groupby([frames["sequence"], place]).mean().groupby("fifth").mean()
    return {f"fifth {fifth + 1}": 100 * score for fifth, score in scores.items()}


def held_out_losses(
    methods: dict[str, Hodor], videos: list[Video], stage: StageOptions, clips: int
) -> dict[str, dict[str, Sample]]:
    """Return for each row and kind of clip the losses by sequence and clip, none of sequences that are too short."""
    found: dict[str, dict[str, Sample]] = {row: {} for row in methods}
    for distance in DISTANCES:
        losses: dict[str, dict[tuple[str, str], float]] = {row: {} for row in methods}
        for number, video in enumerate(videos):
            for i in range(clips if len(video.frames) > distance * (stage.frames - 1) else 0):
                clip = held_out_clip(video, stage, distance, np.random.default_rng([number, distance, i]))
                for row, method in methods.items():
                    with torch.no_grad():
                        losses[row][video.name, str(i)] = method.loss(clip, i)["loss"].item()
        for row in methods:
            found[row][f"{distance} apart" if distance else "warped"] = Sample({0: losses[row]})
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


def compared(losses: dict[str, Sample], first: dict[str, Sample]) -> dict[str, str]:
    """Return the mean loss of each kind of clip, and its difference to the first row's."""
    cells = {}
    for kind, sample in losses.items():
        cells[kind] = f"{sample.scores()[0]:.3f}"
        if sample is not first[kind]:
            difference = compare(sample, first[kind], Bootstrap())
            cells[kind] += f" ({difference.effect:+.3f}, {difference.low:+.3f} to {difference.high:+.3f})"
    return cells


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


def segment(method: Hodor, video: Video, ids: list[int], *, perfect: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Annotated and predicted labels of each frame but the first; `perfect`: earlier frames are described as annotated."""

    def start(name: str) -> tuple[State, np.ndarray]:
        labels = scored_labels(video, name)
        return method.start(video.frame(name), {id: labels == id for id in ids}), labels

    state, _ = start(video.frames[0])
    for name in video.frames[1:]:
        found = np.asarray(method.step(state, video.frame(name)).argmax(0), np.uint8)
        if perfect:
            annotated, truth = start(name)
            state.history[-1] = annotated.history[-1]
        else:
            truth = scored_labels(video, name)
        yield truth, found


if __name__ == "__main__":
    main()
