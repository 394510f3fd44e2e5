"""Whether other settings of training change what masking gives: HODOR trained on images, scored on held-out sequences.

    python benchmarks/training_study.py [--settings "300 steps" ...] [--rows ROWS] [--seeds 1] [--threads 1]

Each row is trained with each of SETTINGS and scored like `masking_study.py objects`, on the sequences of DAVIS-2016 train,
on which no such row is trained and no claim is judged. The data of the scale are prepared beforehand. Alphas can move equally
far in every setting: `alpha_factor` is in inverse proportion to steps and learning rate.

Runs are in --runs and are continued where they were stopped. Calls with different settings can run side by side, one thread
each; a call with all of them then writes one table.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import script_parser, table, train_once, write_result
from masking_study import COMPARED, OBJECTS, Folders, PastedVideo, compared, paste, scores_by_number

from hodor import paths
from hodor.config.loading import load
from hodor.config.stages import StageOptions
from hodor.data.readers import load_videos
from hodor.device import prepare_device
from hodor.models.base import load_model
from hodor.provenance import read_json, write_json_atomic
from hodor.scoring.statistics import Objects
from hodor.stamps import Stamps

ROOT = Path(__file__).resolve().parent.parent
STAGE = "images"


@dataclass(frozen=True)
class Setting:
    """What differs from the stage of the scale: steps, a factor of its learning rate, most objects of a clip."""

    steps: int
    rate: float = 1.0
    objects: int = 2

    def overrides(self, stage: StageOptions) -> dict[str, float]:
        changed = {
            "steps": self.steps,
            "learning_rate": self.rate * stage.learning_rate,
            "alpha_factor": stage.alpha_factor * stage.steps / (self.steps * self.rate),
            "max_objects": self.objects,
        }
        return {f"stages.{STAGE}.{key}": value for key, value in changed.items()}

    def folder(self) -> str:
        return f"steps{self.steps}-rate{self.rate:g}-objects{self.objects}"


SETTINGS = {
    "1,100 steps": Setting(1100),
    "600 steps": Setting(600),
    "300 steps": Setting(300),
    "300 steps, half the learning rate": Setting(300, rate=0.5),
    "300 steps, twice the learning rate": Setting(300, rate=2.0),
    "300 steps, one object a clip": Setting(300, objects=1),
    "300 steps, up to four objects a clip": Setting(300, objects=4),
}


def main() -> None:
    parser = script_parser(__doc__, threads=torch.get_num_threads())
    parser.add_argument("--scale", default="subset")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rows", default="hodor-none-coco,hodor-soft-coco")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds data/")
    parser.add_argument("--dataset", default="davis2016", help="whose train sequences are scored")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "training-study")
    parser.add_argument("--sequences", type=int, help="at most")
    parser.add_argument("--frames", type=int, default=12, help="of each sequence at most")
    options = parser.parse_args()
    prepare_device("cpu", options.threads)
    videos = load_videos(options.root / paths.data(options.scale), options.dataset, "train")[: options.sequences]
    by_number = {number: [paste(number, at, videos, options.frames) for at in range(len(videos))] for number in OBJECTS}
    lines: list[dict[str, object]] = []
    for name in options.settings:
        folders = trained(options, SETTINGS[name])
        scores = {run: scored(folder, options.scale, by_number, options.frames) for run, folder in folders.items()}
        lines += [{"setting": name} | line for line in compared(scores, 1)]
        print(*table(lines), sep="\n", flush=True)
    seeds = [str(seed) for seed in options.seeds]
    explanation = (
        f"Networks trained on images of the scale alone. J&F in points on {len(videos)} sequences of {options.dataset} train, the first"
        f" {options.frames} frames of each, as in the study of the number of objects. {COMPARED}"
    )
    text = [
        f"# Settings of training: scale {options.scale}, seed {', '.join(seeds)}",
        "",
        explanation,
        "",
        *table(lines),
    ]
    write_result(f"{options.scale}_training-study-seed{'-'.join(seeds)}", text, options.out)


def trained(options: argparse.Namespace, setting: Setting) -> Folders:
    """Train the rows with a setting where they are not yet; return their folders."""
    chosen = {"scale": options.scale, "rows": options.rows.split(","), "seeds": options.seeds}
    stage = load(ROOT / "config", chosen, options.root).scale.stages[STAGE]
    config = load(ROOT / "config", chosen | {"overrides": setting.overrides(stage)}, options.root)
    stamps, folders = Stamps(config, options.root).contents, {}
    for seed in options.seeds:
        for row in chosen["rows"]:
            folders[row, seed] = options.runs / options.scale / setting.folder() / row / f"seed{seed}"
            train_once(stamps[f"train-{row}-seed{seed}"], options.root / paths.data(options.scale), folders[row, seed])
    return folders


def scored(folder: Path, scale: str, by_number: dict[int, list[PastedVideo]], frames: int) -> dict[str, Objects]:
    """Return the scores by number of objects of a run, which are kept beside its weights."""
    path, model = folder / f"scores-{frames}-frames.json", read_json(folder / "train.json")["model"]
    sequences = [video.name for video in by_number[1]]
    kept = read_json(path) if path.is_file() else {}
    if (kept.get("model"), kept.get("sequences")) != (model, sequences):
        inference = load(ROOT / "config", {"scale": scale}).scale.inference
        found = scores_by_number(load_model(folder / "model.safetensors", inference)[1], by_number)
        of_kinds = {kind: [[*key, score] for key, score in scores.items()] for kind, scores in found.items()}
        kept = {"model": model, "sequences": sequences, "scores": of_kinds}
        write_json_atomic(path, kept)
    return {kind: {(video, id): score for video, id, score in scores} for kind, scores in kept["scores"].items()}


if __name__ == "__main__":
    main()
