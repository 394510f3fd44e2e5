"""Measure HODOR's inference against a float32 baseline: frames per second, their ratio, and equality of the masks.

    python benchmarks/inference_speed.py --recipe FOLDER/recipe.py --threads 2
    python benchmarks/inference_speed.py --recipe FOLDER/recipe.py --threads 2 --profile

FOLDER holds the parity cases (tests/parity); without it the network is untrained. The baseline runs in float32 with the
plain form of the soft-masked attention; ours has the cheaper form and `--precision`. Each has a process of its own, and
both segment the same frames with the same history in turn, after the temporal window is full. `--profile` reports the
time of the parts of a frame (docs/inference-speed.md).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import torch
from harness import Times, Watch, alternate, script_parser, spread, write_result
from torch import Tensor

from hodor.attention import Form, SoftMaskedAttention
from hodor.config import loading as config
from hodor.config.stages import InferenceOptions
from hodor.data.images import encode_labels
from hodor.device import mixed
from hodor.models.checkpoints.releases import HODOR
from hodor.models.hodor import method as hodor_method
from hodor.models.hodor.method import Hodor

NAMES = ("baseline", "ours")
# A narrow network, for the test of this script.
SMALL = {
    "backbone_width": 32,
    "backbone_depths": (2, 2, 2, 2),
    "dim": 64,
    "encoder_layers": 2,
    "encoder_hidden": 64,
    "decoder_layers": 2,
    "decoder_hidden": 64,
}


def parser() -> argparse.ArgumentParser:
    found = script_parser(__doc__, device=None, rounds=5, threads=torch.get_num_threads())
    found.add_argument("--height", type=int, default=480)
    found.add_argument("--width", type=int, default=854)
    found.add_argument("--short-side", type=int, help="pixels; the paper's, 512, where absent")
    found.add_argument("--objects", type=int, default=3)
    found.add_argument("--small", action="store_true", help="a narrow network instead of the paper's")
    found.add_argument("--recipe", type=Path, help="recipe.py of the parity cases, which makes the weights")
    found.add_argument("--frames", type=int, default=1, help="frames per round")
    found.add_argument("--before", type=int, default=3, help="frames segmented before them, at most the window's")
    found.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"], help="of ours")
    found.add_argument("--compile", action="store_true", help="ours decodes with compiled code")
    found.add_argument("--profile", action="store_true", help="time of the parts of a frame")
    return found


def main() -> None:
    options = parser().parse_args()
    if options.device == "cuda":
        torch.cuda.init()  # the file is named after the GPU
    torch.set_num_threads(options.threads)
    processes = {
        name: ProcessPoolExecutor(1, get_context("spawn"), initializer=begin, initargs=(name, options))
        for name in NAMES
    }
    with processes["baseline"], processes["ours"]:
        labels = [asked.result() for asked in [process.submit(answer, "labels") for process in processes.values()]]
        equal = [(a == b).mean() for a, b in zip(*labels, strict=True)]
        print(f"equal pixels, frame by frame: {' '.join(f'{share:.5f}' for share in equal)}", flush=True)
        if options.profile:
            found = [process.submit(answer, "profile").result() for process in processes.values()]
            write_result("profile_inference-speed", profiles(*found, options), options.out)
            return
        runs = {name: partial(lambda of: of.submit(answer, "run").result(), of) for name, of in processes.items()}
        write_result("inference-speed", lines(alternate(runs, options.rounds), equal, options), options.out)


def lines(times: dict[str, Times], equal: list[float], options: argparse.Namespace) -> list[str]:
    """Return the table of a measurement."""
    network = "a narrow network" if options.small else "the paper's network (Swin-T)"
    weights = "recipe weights" if options.recipe else "untrained"
    precision = f"{options.precision}{', compiled,' if options.compile else ''} against float32"
    ratio = spread(times["ours"].faster_than(times["baseline"]))
    return [
        f"# HODOR's inference, {options.height}x{options.width}, {options.objects} objects, on {options.device}",
        "",
        f"{network}, {weights}, {precision}; {options.frames} frames per round, {options.rounds} rounds.",
        "",
        "| | seconds per frame | frames/s |",
        "|---|---|---|",
        *(
            f"| {name} | {times[name].median / options.frames:.3f} | {options.frames / times[name].median:.2f} |"
            for name in NAMES
        ),
        "",
        f"- ours is faster: {ratio} times",
        f"- equal pixels over {len(equal)} frames: {np.mean(equal):.5f}, least of a frame {min(equal):.5f}",
    ]


def profiles(baseline: dict[str, float], ours: dict[str, float], options: argparse.Namespace) -> list[str]:
    """Return the table of milliseconds per frame of each part."""
    return [
        f"# A frame of HODOR's inference in parts, {options.height}x{options.width}, {options.objects} objects",
        "",
        "| part | baseline, ms | ours, ms |",
        "|---|---|---|",
        *(f"| {part} | {baseline[part]:.0f} | {ours[part]:.0f} |" for part in baseline),
    ]


def begin(name: str, options: argparse.Namespace) -> None:
    """Make the video of a process, and set the process's number formats."""
    global video
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    ours = name == "ours"
    mixed(torch.device(options.device), options.precision if ours else "float32").__enter__()  # to its end
    video = Video(options, compiled=options.compile and ours, attention="auto" if ours else "plain")


def answer(what: str) -> Any:
    """Do with the process's video what is asked."""
    return {"labels": lambda: video.labels, "run": lambda: video.run() is None, "profile": video.profile}[what]()


class Video:
    """A synthetic video whose temporal window is full, filled up with copies of its first entries."""

    def __init__(self, options: argparse.Namespace, *, compiled: bool, attention: Form) -> None:
        paper = config.load(Path(__file__).resolve().parent.parent / "config", {"scale": "paper"}).scale.inference
        settings = paper.model_dump() | {"compile": compiled}
        if options.short_side:
            settings |= {"short_side": options.short_side, "long_side": 100_000}
        torch.manual_seed(0)
        self.method = Hodor(SMALL if options.small else {}, InferenceOptions(**settings)).eval()
        if options.recipe:
            fill_with(self.method, run_path(str(options.recipe))["fill"])
        self.method.to(options.device)
        for module in self.method.modules():
            if isinstance(module, SoftMaskedAttention):
                module.form = attention
        before = 1 + min(options.before, settings["temporal_window"] - 1)
        frames, given = moving_discs(before + options.frames, options.objects, options.height, options.width)
        state = self.method.start(frames[0], {i: given == i for i in range(1, options.objects + 1)})
        self.state, self.frames = state, frames[before:]
        self.labels = self.segment(state, frames[1:before])
        while len(state.history) < settings["temporal_window"]:
            state.history = [*state.history, *state.history][-settings["temporal_window"] :]
        self.labels += self.run()

    def segment(self, state: Any, frames: list[np.ndarray]) -> list[np.ndarray]:
        """Segment frames: features in a batch, then frame by frame, with labels on the host."""
        out = []
        for frame, features in zip(frames, self.method.features(frames), strict=True):
            probabilities = self.method.step(state, frame, None, features)
            out.append(self.on_host(probabilities))
        return out

    @staticmethod
    def on_host(probabilities: Tensor) -> np.ndarray:
        """Return the label of each pixel."""
        return probabilities.max(0).indices.to(torch.uint8).cpu().numpy()

    def run(self) -> list[np.ndarray]:
        """Segment the last frames, each time with the same history."""
        return self.segment(replace(self.state, history=list(self.state.history)), self.frames)

    def profile(self) -> dict[str, float]:
        """Return milliseconds per frame of each part."""
        self.run()
        watch, parts = Watch(), dict.fromkeys((name for name, _, _ in self.parts()), 0.0)
        with ExitStack() as stack:
            for name, owner, attribute in self.parts():
                stack.enter_context(watch.around(owner, attribute, name))
            labels = self.run()
        parts |= {name: 1000 * seconds / len(labels) for name, seconds in watch.seconds.items()}
        features = parts.pop("features")
        parts["rest of features"] = features - parts["backbone"] - parts["pyramid"]
        whole = features + parts["decoder"] + parts["encoder"]
        parts["frame without the next line"] = whole + parts["full-resolution probabilities"] + parts["labels"]
        began = time.perf_counter()
        encode_labels(labels[0])
        parts["PNG"] = 1000 * (time.perf_counter() - began)
        return parts

    def parts(self) -> Iterator[tuple[str, object, str]]:
        """Yield the name of a part of a frame, and the owner and the name of the function that computes it."""
        network, decoder = self.method.network, self.method.network.decoder
        modules = {
            "backbone": [network.backbone],
            "pyramid": [network.pyramid],
            "encoder": [network.encoder],
            "decoder": [decoder],
            "decoder: deformable convolution": [layer.convolution for layer in decoder.layers],
            "decoder: attention to descriptors": [layer.cross_attention for layer in decoder.layers],
            "decoder: convolutions at stride 4": [decoder.reduce_4, decoder.embed_4, decoder.catch_all],
        }
        yield from ((name, module, "forward") for name, found in modules.items() for module in found)
        yield "features", network, "features"
        yield "full-resolution probabilities", hodor_method, "full_probabilities"
        yield "labels", self, "on_host"


def fill_with(method: Hodor, fill: Callable[..., np.ndarray]) -> None:
    """Fill the network with the recipe's weights, by the original names."""
    state = method.network.state_dict()
    for name, value in state.items():
        if not name.endswith("relative_position_index"):
            state[name] = torch.from_numpy(fill(HODOR.rename(name), tuple(value.shape), 0))
    method.network.load_state_dict(state)


def moving_discs(count: int, objects: int, height: int, width: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw frames uint8 (H, W, 3) of coloured discs drifting right over a mottled ground, and labels (H, W) of the first."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 196, (-(-height // 8), -(-width // 8), 3))
    ground = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    colours = rng.integers(0, 256, (objects, 3))
    y, x = np.mgrid[:height, :width]
    frames, first = [], np.zeros((height, width), np.uint8)
    for t in range(count):
        frame = ground + rng.integers(-10, 11, ground.shape)
        for i in range(objects):
            centre = height * (0.3 + 0.4 * (i % 2)), width * (i + 0.7) / (objects + 0.5) + 2 * t
            disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (height / 6) ** 2
            frame[disc] = colours[i] + rng.integers(-10, 11, (int(disc.sum()), 3))
            if t == 0:
                first[disc] = i + 1
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames, first


if __name__ == "__main__":
    main()
