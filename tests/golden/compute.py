"""The computation of every recipe: `Golden(folder).compute(recipe)` gives JSON of summaries."""

import csv
import hashlib
import json
import zipfile
from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hodor.config.datasets import GeneratedOptions
from hodor.config.stages import StageOptions
from hodor.data.dataset import PlannedClips
from hodor.data.images import read_labels, write_labels
from hodor.data.synthetic import generate
from hodor.inference.segment import segment
from hodor.inference.tracker import Tracker
from hodor.models.base import build_method, read_weights, save_model
from hodor.models.checkpoints.convert import convert_to_ours
from hodor.models.checkpoints.releases import FORMATS
from hodor.provenance import sha256_file, sha256_json
from hodor.reporting.claims import claims
from hodor.reporting.tables import tabulate
from hodor.scoring.score import score, submit
from hodor.training.trainer import CLIPS, train
from tests import narrow
from tests.golden.inputs import DAVIS, FRAMES, HOLDOUT, fill, no_random_weights, original_weights, scene, write_data
from tests.narrow import NARROW

CPU = {"device": "cpu", "threads": 1, "precision": "float32"}
OPTIONS = narrow.OPTIONS | {"hodor": NARROW | {"dropout": 0.0}}
"""Options of a small network of a method. No dropout: which units it drops depends on the machine."""
STEPS = ("train", "davis2017-val/segment", "davis2017-val/score")
BOOTSTRAPPED = {"loss": "bootstrapped", "bootstrap_start": 0, "bootstrap_end": 4}

VIDEOS = [
    {"dataset": "youtube-vos", "split": "train", "share": 0.5, "max_distance": 2},
    {"dataset": "davis", "split": "train", "share": 0.5, "max_distance": 2},
]
PICTURES = [{"dataset": "coco", "split": "train2017"}]
STATIC = [*PICTURES, {"dataset": "ecssd", "split": "all"}]
KINDS = {
    "images": {"sources": PICTURES, "pixels": 4096},
    "sparse-video": {"sources": VIDEOS, "short_side": 48, "long_side": 80},
    "dense-video": {"sources": VIDEOS, "short_side": 48, "long_side": 80, "schedule": "cosine", "gradient_clip": 5.0},
    "static-affine": {"sources": STATIC, "crop": 64, "optimiser": "adam", "warmup_steps": 2},
    "static-stcn": {"sources": STATIC, "crop": 64, "schedule": "step", "decay_steps": [2]},
}
HIDING = {"hide_and_seek": {"grid": 4, "ramp": 0.3}, "resampling": "cubic", "exposed": "edge"}
TRAININGS = {
    "hodor": [
        ("images", {"attention": "soft"}, {}),
        ("images", {"attention": "hard", "detach_masks": True}, {}),
        ("sparse-video", {"attention": "soft", "alpha_inside_scale": True}, {}),
        ("dense-video", {"attention": "none"}, {}),
    ],
    "stm": [("static-affine", {}, {}), ("dense-video", {}, {})],
    "kmn": [("static-affine", {}, HIDING), ("static-affine", {}, {})],
    "stcn": [("static-stcn", BOOTSTRAPPED, {}), ("static-affine", {}, {})],
    "dmn-aoa": [("static-stcn", BOOTSTRAPPED, {}), ("static-affine", {}, {})],
    "copy": [],
}
"""Method -> its trainings: kind of the stage, options, settings of the stage. The first one starts from filled weights, in
which everything matters, the others as the network itself starts."""
VARIANTS = {
    "hodor": [{"attention": "soft"}, {"attention": "hard"}, {"attention": "none"}],
    "stm": [{}, {"one_encoder": True}],
}
"""Method -> options of the networks that segment; those of other methods have no variants."""


class Golden:
    """Computes values in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def compute(self, recipe: str) -> Any:
        """The values of a recipe: JSON types, floats rounded to six digits."""
        torch.set_num_threads(1)
        step, _, of = recipe.partition("/")
        call: Callable = getattr(self, f"_{step}")
        return _rounded(call(of) if of else call())

    @cached_property
    def data(self) -> Path:
        folder = self.folder / "data"
        folder.mkdir()
        write_data(folder)
        return folder

    def _generate(self) -> Any:
        world = {f"{name}_{split}": 1 for name, split in (("coco", "train"), ("coco", "val"), ("davis", "train"))}
        world |= {"davis_val": 1, "davis_test_dev": 1, "youtube_train": 1, "youtube_valid": 1}
        sizes = {"coco_sizes": [(72, 96)], "davis_size": (64, 96), "youtube_sizes": [(64, 96)]}
        options = GeneratedOptions(**world, **sizes, davis_frames=3, youtube_frames=4, objects=(2, 2))
        values = {}
        for dataset in ("coco", "davis", "davis2016", "youtube-vos"):
            for path in generate(dataset, options, self._new()):
                with zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
                    images = [name for name in names if name.endswith((".jpg", ".png"))][-1:]
                    values[f"{dataset}/{path.name}"] = {"members": len(names), "first": names[0]} | {
                        name: _summary(np.array(Image.open(BytesIO(archive.read(name))))) for name in images
                    }
        return values

    def _prepare(self, layout: str) -> Any:
        dataset = {"still-images": "ecssd", "weights": "resnet-imagenet"}.get(layout, layout)
        manifest = json.loads((self.data / f"{dataset}.json").read_text())
        values = {key: manifest[key] for key in ("dataset", "edition", "splits", "files")}
        masks = sorted((self.data / dataset).rglob("Annotations/**/*.png"))
        values |= {path.name: _sha256(read_labels(path)) for path in masks[-1:]}
        for path in sorted((self.data / dataset).glob("*.safetensors")):
            values[path.name] = _summary_of_weights(read_weights(path)[0])
        if layout in ("coco", "still-images"):  # what the readers make of the annotations
            source = {"dataset": dataset, "split": "all" if dataset == "ecssd" else "train2017"}
            values["clip"] = self._clips_of("images", {"sources": [source]})[0]
        return values

    def _convert(self) -> Any:
        methods = ("hodor", "stm", "stcn")
        formats = {name: next(format for format in FORMATS if FORMATS[format].method == name) for name in methods}
        with no_random_weights():
            converted = {name: convert_to_ours(FORMATS[of], original_weights(of, {})) for name, of in formats.items()}
        return {name: _summary_of_weights(found[0]) | {"options": found[1]} for name, found in converted.items()}

    def _clips(self) -> Any:
        return {kind: self._clips_of(kind, {}) for kind in KINDS} | {"hidden": self._clips_of("static-affine", HIDING)}

    def _clips_of(self, kind: str, stage: dict) -> list:
        options = StageOptions(**self._stage(kind, {"steps": 2} | stage))
        clips = PlannedClips(CLIPS[kind](options, self.data), seed=0, multiple=options.padding_multiple)
        return [
            {
                "objects": clip.objects,
                "annotated": list(clip.annotated),
                **{name: _summary(getattr(clip, name).numpy()) for name in ("frames", "labels", "valid")},
            }
            for clip in map(clips.__getitem__, range(2))
        ]

    def _stage(self, kind: str, changes: dict) -> dict:
        common = {"kind": kind, "steps": 3, "batch": 2, "learning_rate": 1e-3, "min_area": 60, "min_side": 4}
        common |= {"max_objects": 2, "workers": 0, "log_every": 1}
        return StageOptions(**common | KINDS[kind] | changes).model_dump(mode="json")

    def _trained(self, method: str, options: dict, stage: dict | None, init: Path | None = None) -> Path:
        """A run folder."""
        out = self._new()
        settings = CPU | {"method": method, "options": options, "stage": stage, "init": None, "seed": 0, "datasets": []}
        train({"row": "golden", "settings": settings, "sha256": "golden"}, self.data, out, init)
        return out

    def _filled(self, method: str, options: dict) -> Path:
        """Weights of a network that no initialisation made."""
        out, network = self._new(), build_method(method, options)
        fill(network)
        out.mkdir()
        save_model(out / "model.safetensors", network, name=method, options=options)
        return out / "model.safetensors"

    def _train(self, method: str) -> Any:
        values = {}
        for number, (kind, options, stage) in enumerate(TRAININGS[method]):
            norms: list[float] = []

            def note(optimiser: torch.optim.Optimizer, *_: Any, norms: list[float] = norms) -> None:
                parameters = [p for group in optimiser.param_groups for p in group["params"]]
                norms.append(torch.nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None).item())

            hook = register_optimizer_step_pre_hook(note)
            try:
                all_options = OPTIONS[method] | options
                init = self._filled(method, all_options) if number == 0 else None
                run = self._trained(method, all_options, self._stage(kind, stage), init)
            finally:
                hook.remove()
            lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
            lines = [line for line in lines if "loss" in line]
            steps = [
                {"loss": line["loss"], "rate": line["learning_rate"], "norm": n}
                for line, n in zip(lines, norms, strict=True)
            ]
            parameters = json.loads((run / "train.json").read_text())["parameters"]
            values[f"{number} {kind}"] = {"parameters": parameters, "steps": steps}
        return values or self._segment(method)  # nothing is trained: what it predicts

    def _segment(self, method: str) -> Any:
        settings = {"short_side": 64, "temporal_window": 2, "memory_every": 1, "memory_frames": 4, "feature_batch": 2}
        values = {}
        for options in VARIANTS.get(method, [{}]):
            weights = self._filled(method, OPTIONS[method] | options)
            tracker = Tracker(weights, **CPU, **settings)
            tracker.start(*scene(0, 0, 1))
            found = []
            for t in range(1, FRAMES):
                frame, labels = scene(t, 0)
                new = {2: labels == 2} if t == 2 else None
                found.append(_summary(tracker.step(frame, new, probabilities=True)[1].numpy()))
            benchmark = {"id": "ytvos2019-val", "dataset": "youtube-vos", "split": "valid"}
            stamp = {"settings": CPU | {"benchmark": benchmark, "inference": settings}, "sha256": "golden"}
            segment(stamp, weights, self.data, weights.parent)
            masks = [read_labels(path) for path in sorted(weights.parent.glob("masks/*/*.png"))]
            areas = [(np.bincount(mask.ravel(), minlength=3) / mask.size).tolist() for mask in masks]
            name = " ".join(options.values() if method == "hodor" else options) or method
            values[name] = {"probabilities": found, "areas": areas}
        return values

    def _score(self, layout: str) -> Any:
        benchmark, dataset, secret = {
            "davis": ("davis2017-val", "davis", "davis2017-test-dev"),
            "davis2016": ("davis2016-val", "davis2016", "davis2016-val"),
            "youtube-vos": ("ytvos-holdout", "youtube-vos", "ytvos2019-val"),
        }[layout]
        videos = {"davis": DAVIS["val"], "davis2016": ["swim-val"], "youtube-vos": [HOLDOUT, "penguin"]}[layout]
        out, values = self._new(), {}
        for seed, video in enumerate(videos):
            self._predict(out / "masks" / video, dataset, 2, seed if dataset != "davis2016" else 1)
        score(out / "masks", self.data / dataset, benchmark, out / "scores", official=False, jobs=1)
        for path in sorted((out / "scores").glob("*.csv")):
            with open(path, newline="") as file:
                values[path.name] = [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
        video = {"davis": "walk-test-dev", "davis2016": "swim-val", "youtube-vos": "fly"}[layout]
        self._predict(out / "secret" / video, dataset, 2, 0)
        submit(out / "secret", self.data / dataset, secret, out / "masks.zip", None)
        with zipfile.ZipFile(out / "masks.zip") as archive:
            masks = {name: np.array(Image.open(BytesIO(archive.read(name)))) for name in archive.namelist()}
        values["zip"] = {name: _sha256(mask) for name, mask in list(masks.items())[-1:]} | {"names": list(masks)}
        return values

    def _predict(self, folder: Path, dataset: str, shift: int, seed: int) -> None:
        """Masks that lie `shift` pixels, or one more, below those of `scene`."""
        for t in range(FRAMES):
            labels = np.roll(scene(t, seed)[1], shift + t % 2, axis=0)
            labels = np.where(labels, 255 if dataset == "davis2016" else labels, 0).astype(np.uint8)
            write_labels(folder / f"{5 * t if dataset == 'youtube-vos' else t:05d}.png", labels)

    def _tables(self) -> Any:
        benchmark, runs, digests = "davis2017-val", self._new(), {}
        shown = {"options": {}, "note": "", "trained_on": "nothing", "absent": "", "weights": None, "source": ""}
        rows = {row: shown | {"label": row, "selected": row != "absent"} for row in ("near", "far", "absent")}
        for number, (row, seed) in enumerate((row, seed) for row in ("near", "far") for seed in (0, 1)):
            run, out = runs / row / f"seed{seed}", runs / row / f"seed{seed}" / benchmark
            settings = CPU | {
                "method": "copy",
                "options": {},
                "stage": None,
                "init": None,
                "seed": seed,
                "datasets": [],
            }
            settings |= {"inference": {}, "benchmark": {"id": benchmark, "dataset": "davis", "split": "val"}}
            stamp = {"row": row, "seed": seed, "scale": "tiny", "recipes": {}, "step": "train", "settings": settings}
            digest = sha256_json(stamp)
            stamp["sha256"] = digest
            train(stamp, self.data, run)
            segment(stamp, run / "model.safetensors", self.data, out)
            for seed_of, video in enumerate(DAVIS["val"]):  # instead of copies, so that rows and seeds differ
                self._predict(out / "masks" / video, "davis", 1 + number + seed_of, seed_of)
            record = json.loads((out / "masks.json").read_text())
            record["masks"] = {name: sha256_file(out / "masks" / name) for name in record["masks"]}
            (out / "masks.json").write_text(json.dumps(record))
            score(out / "masks", self.data / "davis", benchmark, out, stamp, official=False, jobs=1)
            digests |= dict.fromkeys((f"{row}/seed{seed}/{step}" for step in STEPS), digest)
        published = {"table": "ablation", "row": "near", "benchmark": benchmark, "metric": "J&F", "value": "77.5"}
        claim = {"id": "c", "claim": "near is better", "kind": "better", "benchmark": benchmark, "source": "here"}
        init, seeds = {"near": None, "far": None}, [0, 1]
        settings = {"rows": rows, "init": init, "seeds": seeds, "seeds_of": dict.fromkeys(init, seeds)}
        settings |= {"benchmarks": [benchmark], "scored": dict.fromkeys(init, [benchmark]), "server_scores": []}
        settings |= {"published": [published | {"source": "poster", "note": ""}], "stamps": digests, "absent": {}}
        settings |= {"claims": [claim | {"rows": ["near", "far"], "note": "", "substitutes": []}], "evidence": "none"}
        settings |= {"scale": "tiny", "title": "golden", "caption": "golden"}
        settings |= {"bootstrap": {"resamples": 500, "seed": 0}}
        settings |= {"rule": {"on_par": 0.5, "fewest_sequences": 2, "fewest_seeds": 2}}
        for table in ("ablation", "comparison", "extended"):
            tabulate({"settings": settings | {"table": table}}, runs, runs)
        claims({"settings": settings | {"table": "claims"}}, runs, runs)
        values = {}
        for path in sorted(runs.glob("*_table.csv")):
            with open(path, newline="") as file:
                rows = [
                    {key: row[key] for key in row if row[key] and key != "manifest"} for row in csv.DictReader(file)
                ]
            values[path.name] = [{key: _number(cell) for key, cell in row.items()} for row in rows]
        judged = json.loads((runs / "claims.json").read_text())["claims"][0]
        values["claims"] = {key: judged[key] for key in ("verdict", "effect", "interval", "probability", "sequences")}
        return values

    def _new(self) -> Path:
        """A folder that is not there yet."""
        self.count += 1
        return self.folder / f"out{self.count}"


def _summary(values: np.ndarray) -> dict[str, Any]:
    """What stands for an array: its shape and type, mean, standard deviation, and five values at fixed places."""
    flat = values.astype(np.float64).ravel()
    places = (np.arange(5) * flat.size // 5 + flat.size // 7) % flat.size
    shape = {"shape": list(values.shape), "dtype": str(values.dtype)}
    return shape | {"mean": flat.mean(), "std": flat.std(), "at": flat[places].tolist()}


def _summary_of_weights(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    text = "".join(f"{name} {tuple(value.shape)}\n" for name, value in sorted(weights.items()))
    values = [weights[name].double().ravel() for name in sorted(weights)[::20]]
    middle = [[value.mean().item(), value[len(value) // 3].item()] for value in values]
    return {"names": hashlib.sha256(text.encode()).hexdigest(), "count": len(weights), "values": middle}


def _sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(of) for of in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
