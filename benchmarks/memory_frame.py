"""Where the time of a memory method's frame goes: STM, KMN, STCN and DMN+AOA at paper size, random weights and frames.

    python benchmarks/memory_frame.py          # 480p, 3 objects, 4 frames after the first: 3 minutes
    python benchmarks/memory_frame.py --device cuda

A part is timed from its call to its end, the device waited for. The memory is that of the schedule, filled up beforehand
with random cells to `--frames` frames, as in the middle of a video of a hundred. What is encoded of a masked frame is put
on its own line as time of a frame that is remembered, for STCN remembers every fifth alone.
"""

import argparse
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from harness import Watch, script_parser, write_result

from hodor.config.stages import InferenceOptions
from hodor.models.base import Method, build_method
from hodor.models.memory import method as memory_method

METHODS = ("stm", "kmn", "stcn", "dmn-aoa")
# Attributes of the network, and what the table calls them.
PARTS = {
    "query": "encode the frame",
    "segment": "decode",
    "memorise": "encode what is remembered",
    "update": "update the templates",
}


def fill(method: Method, state: Any, frames: int) -> None:
    """Remember further frames of random cells, as if before the first."""
    options, objects = method.options, state.bank.objects
    grid = [side // (4 * options.stride) for side in state.geometry.padded]
    for t in range(1, frames):
        key = torch.randn(1 if method.network.shared else objects, options.key_dim, *grid)
        value = torch.randn(objects, options.value_dim, *grid)
        device = next(method.parameters()).device
        state.bank.add(-t, key.to(device), value.to(device), kept=True)


def measure(name: str, options: dict[str, Any], size: argparse.Namespace) -> tuple[float, Watch]:
    """Seconds of a frame, and of its parts."""
    torch.manual_seed(0)
    method: Method = build_method(name, options, InferenceOptions(short_side=min(size.height, size.width))).eval()
    method.to(size.device)
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (size.steps + 2, size.height, size.width, 3), dtype=np.uint8)
    masks = {}
    for k in range(size.objects):
        masks[k + 1] = np.zeros((size.height, size.width), bool)
        width = size.width // size.objects
        masks[k + 1][size.height // 4 : -size.height // 4, k * width : (k + 1) * width] = True
    state = method.start(frames[0], masks)
    if hasattr(state, "bank"):
        with torch.inference_mode():
            fill(method, state, size.frames)
    method.step(state, frames[1])  # the first call of each product sets itself up
    watch = Watch()
    with ExitStack() as stack:
        for part, title in PARTS.items():
            if hasattr(method.network, part):
                stack.enter_context(watch.around(method.network, part, title))
        stack.enter_context(watch.around(memory_method, "chunked_readout", "read the memory"))
        with watch.timed("frame"):
            for frame in frames[2:]:
                method.step(state, frame)
    return watch.seconds.pop("frame") / size.steps, watch


def main() -> None:
    parser = script_parser(__doc__, device="cpu", threads=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--frames", type=int, default=20, help="remembered")
    parser.add_argument("--steps", type=int, default=4, help="frames that are timed; the fourth is remembered by STCN")
    parser.add_argument("--small", action="store_true", help="small networks, for a test")
    size = parser.parse_args()
    torch.set_num_threads(size.threads)
    options = {"backbone": "convnet", "backbone_width": 8, "backbone_depths": (1, 1, 1)} if size.small else {}
    lines = [
        f"# A frame of a memory method: {size.height} x {size.width}, {size.objects} objects, {size.frames} frames "
        "remembered, random weights",
        "",
        "| method | part | ms a call | part of a frame's time |",
        "|---|---|---|---|",
    ]
    for name in size.methods:
        frame, watch = measure(name, options, size)
        rows = [f"| {name} | frame | {1e3 * frame:.0f} | |"]
        for part, seconds in watch.seconds.items():
            each, share = 1e3 * seconds / watch.calls[part], seconds / size.steps / frame
            rows.append(f"| {name} | {part} | {each:.0f} | {share:.0%} |")
        print("\n".join(rows), flush=True)
        lines += rows
    write_result("memory_frame", lines, size.out)


if __name__ == "__main__":
    main()
