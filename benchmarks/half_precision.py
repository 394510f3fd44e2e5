"""What half precision costs in J&F: trained weights segment a benchmark in float32 and in bfloat16.

    python benchmarks/half_precision.py --data data/subset --dataset davis2016 [--weights RUN] [--frames 30]

The data are prepared (`snakemake --config scale=subset mirror=FOLDER -- data`). J and F are the official ones, over the
frames between the first and the last that are segmented.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import scored_labels, script_parser, write_result

from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import mixed, prepare_device
from hodor.inference.pretrained import find_pretrained
from hodor.inference.segment import segment_video
from hodor.inference.weights import Loaded, open_weights
from hodor.provenance import sha256_file
from hodor.scoring.jf import frame_scores

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    parser = script_parser(__doc__, device=None, threads=torch.get_num_threads())
    parser.add_argument("--weights", help="as of `hodor track`: a run, a checkpoint; by default the package's own")
    parser.add_argument("--data", type=Path, default=Path("data/subset"), help="folder of the prepared data sets")
    parser.add_argument("--dataset", default="davis")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, help="of each video at most")
    options = parser.parse_args()
    device = prepare_device(options.device, options.threads)
    loaded = open_weights(find_pretrained(options.weights))
    loaded.method.to(device)
    videos = load_videos(options.data, options.dataset, options.split)
    videos = [replace(video, frames=video.frames[: options.frames]) for video in videos]
    scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    equal = []
    for video in videos:
        found = {}
        for precision in PRECISIONS:
            with mixed(device, precision):
                found[precision] = dict(segment_video(loaded.method, video))
            scores[precision] += object_scores(video, found[precision])
        equal += [(found["float32"][frame] == found["bfloat16"][frame]).mean() for frame in video.frames]
        print(f"{video.name}: J&F {' '.join(f'{100 * np.mean(scores[p]):.2f}' for p in PRECISIONS)} so far", flush=True)
    write_result("half-precision", lines(loaded, videos, scores, equal, options), options.out)


def lines(
    loaded: Loaded,
    videos: list[Video],
    scores: dict[str, list[float]],
    equal: list[float],
    options: argparse.Namespace,
) -> list[str]:
    """The table."""
    frames = sum(len(video.frames) for video in videos)
    mean = {precision: 100 * np.mean(scores[precision]) for precision in PRECISIONS}
    moved = 100 * np.abs(np.subtract(scores["bfloat16"], scores["float32"]))
    return [
        f"# Half precision: {'/'.join(loaded.file.parts[-3:-1])} on {options.dataset} {options.split}",
        "",
        f"weights {sha256_file(loaded.file)[:12]}, {len(videos)} videos, {frames} frames, {len(moved)} objects, short side "
        f"{loaded.method.inference.short_side}, on {options.device}",
        "",
        "| precision | J&F |",
        "|---|---|",
        *(f"| {precision} | {mean[precision]:.2f} |" for precision in PRECISIONS),
        "",
        f"- J&F changes by {mean['bfloat16'] - mean['float32']:+.2f}; that of one object by at most {moved.max():.2f}",
        f"- equal pixels: {100 * np.mean(equal):.2f} %",
    ]


def object_scores(video: Video, labels: dict[str, np.ndarray]) -> list[float]:
    """J&F of each object, 0 to 1: the mean of its scored frames."""
    ids = sorted(video.first_seen)
    scored = [frame_scores(scored_labels(video, frame), labels[frame], ids) for frame in video.frames[1:-1]]
    return np.mean(scored, axis=(0, 2)).tolist()


if __name__ == "__main__":
    main()
