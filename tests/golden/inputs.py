"""Fixed inputs: moving shapes, mini data sets in the official layouts, weights that do not depend on an initialisation."""

import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from hodor.config.datasets import WEIGHT_SETS
from hodor.data.images import write_labels
from hodor.data.prepare import prepare
from hodor.models.checkpoints.load import prepare_weights
from hodor.models.checkpoints.releases import FORMATS
from tests.data.datasets import fetch_packed, write_coco

SIZE = (64, 96)
FRAMES = 6
DAVIS = {"train": ["walk-train"], "val": ["walk-val", "run-val"], "test-dev": ["walk-test-dev"]}
HOLDOUT = "v0000"
"""A video of YouTube-VOS train that the hold-out takes by its name alone."""


def scene(t: int, seed: int, objects: int = 2, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Frame `t` of a video, uint8 (H, W, 3), and its labels: a box that moves right, a disc that moves up."""
    y, x = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint8)
    labels[(abs(y - 20 - seed) < 12) & (abs(x - 22 - 4 * t) < 14)] = 1
    if objects > 1:
        labels[(y - 48 + 2 * t) ** 2 + (x - 66 + seed) ** 2 < 150] = 2
    colours = np.array([[60, 70, 80], [200, 60, 40], [40, 90, 210]])[labels]
    texture = (x * (3 + seed) + y * 5 + (x // 4 * y // 3) % 7 * 9) % 41
    return (colours + texture[..., None]).astype(np.uint8), labels


def write_data(folder: Path) -> None:
    """`folder/<dataset>` and its manifest for every layout, through archives, `fetch` and `prepare`."""
    for dataset, write in WRITERS.items():
        write(folder / "raw" / dataset)
        fetch_packed(dataset, folder / "raw" / dataset, folder)
        step = prepare_weights if dataset in WEIGHT_SETS else prepare
        settings = {"dataset": dataset, "edition": "subset"}
        step({"settings": settings}, folder / "archives" / dataset, folder / dataset, folder / f"{dataset}.json")


def _write_video(frames: Path, masks: Path, names: list[str], seed: int, shown: int | None = None, *, late=False):
    """Frames and the masks of the first `shown`; `late`: the second object first appears in the third frame."""
    for t, name in enumerate(names):
        pixels, labels = scene(t, seed, 1 if late and t < 2 else 2)
        _write_image(frames / f"{name}.jpg", pixels)
        if shown is None or t < shown or (late and t == 2):
            write_labels(masks / f"{name}.png", labels)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _davis(root: Path) -> None:
    base, names = root / "DAVIS", [f"{t:05d}" for t in range(FRAMES)]
    for split, sequences in DAVIS.items():
        (base / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / "2017" / f"{split}.txt").write_text("".join(f"{name}\n" for name in sequences))
        for seed, sequence in enumerate(sequences):
            frames, masks = base / "JPEGImages" / "480p" / sequence, base / "Annotations" / "480p" / sequence
            _write_video(frames, masks, names, seed, 1 if split == "test-dev" else None)


def _davis2016(root: Path) -> None:
    base = root / "DAVIS"
    (base / "ImageSets" / "480p").mkdir(parents=True)
    for seed, split in enumerate(("train", "val")):
        lines = []
        for t in range(FRAMES):
            name = f"480p/swim-{split}/{t:05d}"
            pixels, labels = scene(t, seed)
            _write_image(base / "JPEGImages" / f"{name}.jpg", pixels)
            write_labels(base / "Annotations" / f"{name}.png", np.where(labels, 255, 0).astype(np.uint8))
            lines.append(f"/JPEGImages/{name}.jpg /Annotations/{name}.png\n")
        (base / "ImageSets" / "480p" / f"{split}.txt").write_text("".join(lines))


def _youtube_vos(root: Path) -> None:
    names = [f"{5 * t:05d}" for t in range(FRAMES)]
    for split, videos in (("train", [HOLDOUT, "penguin", "run"]), ("valid", ["fly"])):
        meta = {}
        for seed, video in enumerate(videos):
            late = video in (HOLDOUT, "fly")
            kinds = ("penguin" if video == "penguin" else "dog", "cat") if split == "train" else (None, None)
            frames = (names, names[2:] if late else names)
            meta[video] = {
                "objects": {
                    str(i + 1): {"category": kind, "frames": of}
                    for i, (kind, of) in enumerate(zip(kinds, frames, strict=True))
                }
            }
            folders = root / split / "JPEGImages" / video, root / split / "Annotations" / video
            _write_video(*folders, names, seed, 1 if split == "valid" else None, late=late)
        (root / split / "meta.json").write_text(json.dumps({"videos": meta}))


def _coco(root: Path) -> None:
    box, triangle = [8.0, 10.0, 40.0, 10.0, 40.0, 34.0, 8.0, 34.0], [50.0, 52.0, 88.0, 52.0, 70.0, 22.0]
    crowd = {"size": list(SIZE), "counts": [64 * 80, 64 * 12, 64 * 4]}
    for split, count in (("train2017", 4), ("val2017", 1)):
        annotations = []
        for i in range(1, count + 1):
            shapes = [([box], 768.0, [8, 10, 32, 24], 0), ([triangle], 570.0, [50, 22, 38, 30], 0)]
            shapes += [(crowd, 768.0, [80, 0, 12, 64], 1)] if i == 1 else []
            for segmentation, area, bbox, iscrowd in shapes:
                entry = {"segmentation": segmentation, "area": area, "bbox": bbox, "iscrowd": iscrowd}
                annotations.append(entry | {"image_id": i})
        write_coco(root, split, {i: scene(i, i)[0] for i in range(1, count + 1)}, annotations)


def _ecssd(root: Path) -> None:
    for i in range(4):
        pixels, labels = scene(i, i, 1, (80, 96))
        _write_image(root / "images" / f"{i:04d}.jpg", pixels)
        _write_image(root / "ground_truth_mask" / f"{i:04d}.png", np.where(labels, 255, 0).astype(np.uint8))


def _resnets(root: Path) -> None:
    root.mkdir()
    for archive, kind in WEIGHT_SETS["resnet-imagenet"].items():
        torch.save(original_weights("resnet-imagenet", {"architecture": kind}), root / archive)


WRITERS = {
    "coco": _coco,
    "davis": _davis,
    "davis2016": _davis2016,
    "youtube-vos": _youtube_vos,
    "ecssd": _ecssd,
    "resnet-imagenet": _resnets,
}


@contextmanager
def no_random_weights() -> Iterator[None]:
    """Networks of full size are built without drawing their starting weights, which takes most of the time."""
    with ExitStack() as stack:
        names = ("normal_", "trunc_normal_", "uniform_", "xavier_uniform_", "orthogonal_")
        for name in (*names, "kaiming_normal_", "kaiming_uniform_"):
            stack.enter_context(mock.patch.object(torch.nn.init, name, lambda tensor, *_, **__: tensor))
        yield


def original_weights(name: str, options: dict) -> dict[str, torch.Tensor]:
    """A checkpoint of a format: rising numbers whose range depends on the entry's name, so that each place differs."""
    format = FORMATS[name]
    entries = format.to_original(format.untrained(options))
    for entry, value in entries.items():
        if value.is_floating_point() and entry not in format.constants:
            start = zlib.crc32(entry.encode()) % 1000
            ramp = torch.arange(value.numel(), dtype=torch.float32) / max(1, value.numel())
            entries[entry] = ((start + ramp) / 1000).view(value.shape)
    return entries


CASES: dict[str, tuple[str, dict]] = {
    "hodor": ("hodor", {}),
    "stm": ("stm", {}),
    "stcn": ("stcn", {"others": False}),
    "stcn-5": ("stcn", {"others": True}),
    "swin-detection": ("swin-detection", {}),
    "swin-imagenet": ("swin-imagenet", {}),
    "resnet18": ("resnet-imagenet", {"architecture": "resnet18"}),
    "resnet50": ("resnet-imagenet", {"architecture": "resnet50"}),
}
"""Original checkpoints: name of a case -> its format and options."""


def original(case: str, *, dead: bool = True) -> dict[str, torch.Tensor]:
    """Random entries from 0 to 1 as in the release, with or without those that it never uses."""
    name, options = CASES[case]
    format, generator = FORMATS[name], torch.Generator().manual_seed(1)
    with no_random_weights():
        live = format.to_original(format.untrained(options))
    for entry, value in live.items():
        if value.is_floating_point() and entry not in format.constants:
            live[entry] = torch.rand(value.shape, generator=generator)
    entries = live | (format.dead(live) if dead else {})
    return {format.prefix + entry: value for entry, value in entries.items()}


def fill(method: torch.nn.Module) -> None:
    """Give each parameter random numbers that depend on its name alone, large enough for lively outputs."""
    for name, parameter in method.named_parameters():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = np.asarray(rng.standard_normal(tuple(parameter.shape)))
        if parameter.dim() > 1:
            values *= 1.5 / parameter[0].numel() ** 0.5
        elif "alpha" in name:
            continue
        else:
            values = 0.2 * values + name.endswith("weight")
        parameter.data.copy_(torch.tensor(values, dtype=torch.float32))
