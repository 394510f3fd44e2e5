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
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, Times, alternate, spread, write_result
from torch.profiler import ProfilerActivity, profile, record_function

from hodor.attention import Form, SoftMaskedAttention
from hodor.config import loading as config
from hodor.config.stages import InferenceOptions
from hodor.data.images import encode_labels
from hodor.device import mixed
from hodor.models.checkpoints.releases import HODOR
from hodor.models.hodor import method as hodor_method
from hodor.models.hodor.decoder import DecoderLayer
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
    found = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    found.add_argument("--height", type=int, default=480)
    found.add_argument("--width", type=int, default=854)
    found.add_argument("--short-side", type=int, help="pixels; the paper's, 512, where absent")
    found.add_argument("--objects", type=int, default=3)
    found.add_argument("--small", action="store_true", help="a narrow network instead of the paper's")
    found.add_argument("--recipe", type=Path, help="recipe.py of the parity cases, which makes the weights")
    found.add_argument("--frames", type=int, default=1, help="frames per round")
    found.add_argument("--before", type=int, default=3, help="frames segmented before them, at most the window's")
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--threads", type=int, default=torch.get_num_threads())
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"], help="of ours")
    found.add_argument("--compile", action="store_true", help="ours decodes with compiled code")
    found.add_argument("--profile", action="store_true", help="time of the parts of a frame")
    found.add_argument("--out", type=Path, default=RESULTS)
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
            with record_function("hodor: labels"):
                out.append(probabilities.max(0).indices.to(torch.uint8).cpu().numpy())
        return out

    def run(self) -> list[np.ndarray]:
        """Segment the last frames, each time with the same history."""
        return self.segment(replace(self.state, history=list(self.state.history)), self.frames)

    def profile(self) -> dict[str, float]:
        """Return milliseconds per frame of each part, by torch.profiler."""
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_initialized() else [])]
        with marked(self.method):
            self.run()
            with profile(activities=kinds) as seen:
                labels = self.run()
        spent = {e.key: e.cpu_time_total for e in seen.key_averages() if e.key.startswith("hodor: ")}
        parts = {name.removeprefix("hodor: "): t / 1000 / len(labels) for name, t in spent.items()}
        whole = parts.pop("features") + parts["decoder"] + parts["encoder"]
        ordered = {name: parts.get(name, 0.0) for name in PARTS}
        ordered["rest of features"] = (
            spent["hodor: features"] / 1000 / len(labels) - parts["backbone"] - parts["pyramid"]
        )
        ordered["frame without the next line"] = whole + parts["full-resolution probabilities"] + parts["labels"]
        began = time.perf_counter()
        encode_labels(labels[0])
        ordered["PNG"] = 1000 * (time.perf_counter() - began)
        return ordered


PARTS = (
    "backbone",
    "pyramid",
    "encoder",
    "decoder",
    "decoder: deformable convolution",
    "decoder: attention to descriptors",
    "decoder: convolutions at stride 4",
    "full-resolution probabilities",
    "labels",
)


@contextmanager
def marked(method: Hodor) -> Iterator[None]:
    """Context in which the parts of a frame are named in a profile."""
    network = method.network
    modules = {"backbone": [network.backbone], "pyramid": [network.pyramid], "encoder": [network.encoder]}
    layers: list[DecoderLayer] = list(network.decoder.layers)
    modules["decoder"] = [network.decoder]
    modules["decoder: deformable convolution"] = [layer.convolution for layer in layers]
    modules["decoder: attention to descriptors"] = [layer.cross_attention for layer in layers]
    decoder = network.decoder
    modules["decoder: convolutions at stride 4"] = [decoder.reduce_4, decoder.embed_4, decoder.catch_all]
    own = {}
    try:
        for name, found in modules.items():
            for module in found:
                module.forward = _marked(name, module.forward)
        network.features = _marked("features", network.features)
        for name in ("full_probabilities",):
            own[name] = getattr(hodor_method, name)
            setattr(hodor_method, name, _marked("full-resolution probabilities", own[name]))
        yield
    finally:
        for found in modules.values():
            for module in found:
                del module.forward
        del network.features
        for name, function in own.items():
            setattr(hodor_method, name, function)


def _marked(name: str, function: Callable) -> Callable:
    def call(*arguments: Any) -> Any:
        with record_function(f"hodor: {name}"):
            return function(*arguments)

    return call


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
