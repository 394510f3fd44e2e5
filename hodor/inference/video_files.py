"""Videos of people: a file that FFmpeg reads (mp4, mov, webm, ...) or a folder of images; frames in, overlays out.

Both are streams: one frame is held at a time, whatever the length. PyAV (`av`) is imported when a video file is read
or written and by nothing else.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from hodor.data.images import read_rgb, read_size
from hodor.errors import HodorError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
FOLDER_RATE = Fraction(24)
"""Frames a second of an overlay whose video is a folder of images (those of DAVIS)."""


class FrameSource:
    """Frames of a video, in order.

    Attributes:
        path: file or folder. size: (height, width) in pixels, of every frame. rate: frames a second.
        count: number of frames, None where the file does not say.
        names: of all frames where they are known beforehand (a folder), else None: then they are 00000, 00001, ...
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    count: int | None
    names: tuple[str, ...] | None = None

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, uint8 RGB (H, W, 3)); HodorError names the frame that cannot be read or has another size."""
        raise NotImplementedError

    def index(self, key: str) -> int:
        """Number of the frame that a person calls `key`: its name, or its number counted from 0.

        Raises:
            HodorError: no such frame, or a number that might mean two frames.
        """
        if self.names is not None and key in self.names:
            return self.names.index(key)
        if not key.isdecimal():
            raise HodorError(f"{self.path}: has no frame {key!r}; give a frame's name, or its number counted from 0")
        number = int(key)
        same = [i for i, name in enumerate(self.names or ()) if name.isdecimal() and int(name) == number]
        if same and same != [number]:
            raise HodorError(
                f"{self.path}: {key} may be the frame {self.names[same[0]]} or the frame number {number} from 0; "
                f"write the name, {self.names[same[0]]}"
                + (f" or {self.names[number]}" if number < len(self.names) else "")
            )
        if self.count is not None and number >= self.count:
            raise HodorError(f"{self.path}: has no frame {key}, only {self.count} frames, counted from 0")
        return number


def open_frames(path: str | Path, rate: Fraction | None = None) -> FrameSource:
    """Opens a video file or a folder of images.

    Raises:
        HodorError: nothing there, no image or no video in it, or damage at its start.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, rate)
    if not path.is_file():
        raise HodorError(f"{path}: no such video; give a video file or a folder of images")
    return VideoFile(path, rate)


class ImageFolder(FrameSource):
    """The .jpg, .jpeg and .png of a folder in natural order (2 before 10); other files are left alone."""

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_ENDINGS and file.name[0] != "."]
        if not files:
            raise HodorError(f"{path}: no image here ({', '.join(IMAGE_ENDINGS)}); give the folder of a video's frames")
        self.files = sorted(files, key=lambda file: (natural(file.stem), file.name))
        for before, after in zip(self.files, self.files[1:], strict=False):
            if before.stem == after.stem:
                raise HodorError(f"{before} and {after.name}: two images of one frame; remove one")
        self.path, self.rate, self.count = path, rate or FOLDER_RATE, len(files)
        self.names = tuple(file.stem for file in self.files)
        self.size = read_size(self.files[0])

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, file in zip(self.names, self.files, strict=True):
            yield name, read_rgb(file, self.size)


class VideoFile(FrameSource):
    """The first video stream of a file, upright (a phone's rotation is applied)."""

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        self.path = path
        with self._open() as container:
            stream = self._stream(container)
            self.rate = rate or stream.average_rate or FOLDER_RATE
            self.count = stream.frames or None
            self.size = self._first_size(container, stream)

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        import av

        done = hidden = 0
        with self._open() as container:
            stream = self._stream(container)
            stream.thread_type = "AUTO"
            try:
                for packet in container.demux(stream):
                    if packet.is_corrupt:
                        raise self._broken(done)
                    # What was cut off without encoding anew is in the file, and its edit list hides it.
                    hidden += packet.is_discard
                    for frame in packet.decode():
                        if frame.is_corrupt:
                            raise self._broken(done)
                        image = upright(frame)
                        if image.shape[:2] != self.size:
                            raise HodorError(
                                f"{self.path}: frame {done:05d} has {image.shape[1]}x{image.shape[0]} pixels, the "
                                f"first {self.size[1]}x{self.size[0]}; cut the video there"
                            )
                        yield f"{done:05d}", image
                        done += 1
            except av.error.FFmpegError as error:
                raise self._broken(done) from error
        if self.count is not None and done + hidden < self.count:
            raise self._broken(done)

    def _open(self):
        import av

        try:
            return av.open(str(self.path))
        except av.error.FFmpegError as error:
            raise HodorError(
                f"{self.path}: no video that FFmpeg can read, or a damaged one ({error.strerror})"
            ) from error

    def _stream(self, container):
        if not container.streams.video:
            raise HodorError(f"{self.path}: has no video stream")
        return container.streams.video[0]

    def _first_size(self, container, stream) -> tuple[int, int]:
        import av

        try:
            for frame in container.decode(stream):
                return upright(frame).shape[:2]
        except av.error.FFmpegError as error:
            raise self._broken(0) from error
        raise HodorError(f"{self.path}: holds no frame")

    def _broken(self, frame: int) -> HodorError:
        of = f" of {self.count}" if self.count else ""
        return HodorError(
            f"{self.path}: damaged or cut off at frame {frame:05d}{of}; take the video again, or cut it there"
        )


def upright(frame) -> np.ndarray:
    """A decoded frame as uint8 RGB (H, W, 3), turned as its display matrix says (quarter turns)."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def natural(name: str) -> tuple:
    """Sort key under which numbers in names count as numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


class VideoWriter:
    """Writes frames to a .mp4 as they come (H.264 where FFmpeg has it, else MPEG-4).

    A context: however it ends, the file holds the frames written so far and plays.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        self.path, self.rate = path, rate
        # Both codecs halve the colour planes: an odd side gets one more row or column.
        self.pad = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._container = self._stream = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 RGB (H, W, 3)."""
        import av

        if self._container is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._container = av.open(str(self.path), "w", format="mp4")
            self._stream = self._container.add_stream(codec, rate=self.rate.limit_denominator(65535))
            self._stream.height, self._stream.width = self.size
            self._stream.pix_fmt = "yuv420p"
            if codec == "libx264":
                self._stream.options = {"crf": "18", "preset": "veryfast"}
            else:
                self._stream.bit_rate = 8_000_000
        image = np.pad(frame, self.pad, mode="edge") if any(after for _, after in self.pad) else frame
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

    def __exit__(self, *exception) -> None:
        if self._container is not None:
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()
