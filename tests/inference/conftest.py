"""Model files of small networks, and a writer of video files."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests.narrow import MEMORY, NARROW, save_small


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Path:
    """Write model files named by their method."""
    folder = tmp_path_factory.mktemp("networks")
    for name, options in (("hodor", NARROW), ("stm", MEMORY), ("copy", {})):
        save_small(folder / f"{name}.safetensors", name, options)
    return folder


@pytest.fixture(scope="session")
def small_weights(networks) -> Path:
    """Return the model file of a narrow HODOR."""
    return networks / "hodor.safetensors"


@pytest.fixture(scope="session")
def write_video():
    """Return a function that writes frames, uint8 (H, W, 3), to a video file (H.264)."""
    av = pytest.importorskip("av")

    def write(path: Path, frames, rate: Fraction = Fraction(12), **options: str) -> Path:
        with av.open(str(path), "w", options=options) as container:
            stream = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=rate)
                    stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                    stream.options = {"crf": "10", "g": "8"}
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
