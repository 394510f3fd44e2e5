"""A small network, and videos of moving blocks."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from hodor.models.base import build_method, save_model
from tests.narrow import NARROW


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> Path:
    """Write a model file of an untrained, narrow HODOR."""
    torch.manual_seed(0)
    method = build_method("hodor", NARROW)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(path, method, name="hodor", options=method.options.model_dump(mode="json"))
    return path


@pytest.fixture(scope="session")
def moving():
    """Return a generator of frames, uint8 (H, W, 3), of coloured blocks that move two pixels per frame."""

    def make(count: int, size: tuple[int, int] = (64, 96)):
        coarse = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), dtype=np.uint8)
        blocks = coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
        for t in range(count):
            yield np.ascontiguousarray(np.roll(blocks, 2 * t, axis=1))

    return make


@pytest.fixture(scope="session")
def write_video():
    """Return a function that writes frames to a video file (H.264) with a `rotation` in degrees."""
    av = pytest.importorskip("av")

    def write(path: Path, frames, rate: Fraction = Fraction(12), rotation: int = 0, **options: str) -> Path:
        with av.open(str(path), "w", options=options) as container:
            stream = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=rate)
                    stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                    stream.options = {"crf": "10", "g": "8"}
                    if rotation:
                        stream.set_display_rotation(rotation)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
