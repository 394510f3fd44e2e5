"""What half precision costs in J&F: a trained row segments a benchmark in float32 and in bfloat16.

    python benchmarks/half_precision.py --scale subset --row hodor-soft-coco [--frames 30]

The row is trained and the data are prepared (`snakemake --config scale=subset rows=hodor-soft-coco`). J and F are the
official ones, over the frames between the first and the last that are segmented. On a CPU float32 takes the forms for
inference and bfloat16 the plain ones, under autocast, as `precision: bfloat16` does.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import RESULTS, scored_labels, write_result

from hodor.config import loading as config
from hodor.data.readers import load_videos
from hodor.data.video import Video
from hodor.device import mixed, prepare_device
from hodor.inference.segment import segment_video
from hodor.models.base import Method, load_model
from hodor.scoring.jf import frame_scores

PRECISIONS = ("float32", "bfloat16")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--row", default="hodor-soft-coco")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds runs/ and data/")
    parser.add_argument("--dataset", default="davis")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, help="of each video at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = prepare_device(options.device, options.threads)
    scale = config.load(ROOT / "config", {"scale": options.scale}).scale
    weights = options.root / "runs" / options.scale / options.row / "seed0" / "model.safetensors"
    name, method = load_model(weights, scale.inference)
    method.to(device)
    videos = load_videos(options.root / "data" / options.scale, options.dataset, options.split)
    videos = [replace(video, frames=video.frames[: options.frames]) for video in videos]
    scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    seconds, equal = dict.fromkeys(PRECISIONS, 0.0), []
    for video in videos:
        found = {}
        for precision in PRECISIONS:
            began = time.perf_counter()
            with mixed(device, precision):
                found[precision] = dict(segment_video(method, video))
            seconds[precision] += time.perf_counter() - began
            scores[precision] += object_scores(video, found[precision])
        equal += [(found["float32"][frame] == found["bfloat16"][frame]).mean() for frame in video.frames]
        print(f"{video.name}: J&F {' '.join(f'{100 * np.mean(scores[p]):.2f}' for p in PRECISIONS)} so far", flush=True)
    write_result(
        f"{options.scale}_half-precision", lines(name, method, videos, scores, seconds, equal, options), options.out
    )


def lines(
    name: str,
    method: Method,
    videos: list[Video],
    scores: dict[str, list[float]],
    seconds: dict[str, float],
    equal: list[float],
    options: argparse.Namespace,
) -> list[str]:
    """The table."""
    frames = sum(len(video.frames) for video in videos)
    mean = {precision: 100 * np.mean(scores[precision]) for precision in PRECISIONS}
    moved = 100 * np.abs(np.subtract(scores["bfloat16"], scores["float32"]))
    return [
        f"# Half precision: {options.row} at scale {options.scale} on {options.dataset} {options.split}",
        "",
        f"method {name}, {len(videos)} videos, {frames} frames, {len(moved)} objects, short side "
        f"{method.inference.short_side}, on {options.device}",
        "",
        "| precision | J&F | frames/s |",
        "|---|---|---|",
        *(f"| {precision} | {mean[precision]:.2f} | {frames / seconds[precision]:.2f} |" for precision in PRECISIONS),
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
