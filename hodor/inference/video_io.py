"""Read videos of users, files that FFmpeg reads (mp4, mov, webm, ...) or folders of images, and write overlays.

One frame is in memory at a time. PyAV (`av`) is imported only when a video file is read or written.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hodor.data.images import DAVIS_PALETTE, check_pixels, read_rgb, read_size
from hodor.errors import HodorError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
FOLDER_RATE = Fraction(24)
"""Frames per second of an overlay whose video is a folder of images, as in DAVIS."""


class FrameSource:
    """The frames of a video, in order."""

    path: Path  # file or folder
    size: tuple[int, int]  # (height, width) in pixels, of every frame
    rate: Fraction  # frames per second
    count: int | None  # number of frames, None if the file does not contain it
    names: tuple[str, ...] | None = None  # of all frames in a folder; frames of a file are named 00000, 00001, ...

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, uint8 RGB (H, W, 3)); HodorError names a frame that is damaged or of another size."""
        raise NotImplementedError

    def index(self, key: str) -> int:
        """Return the number of a frame from `key`, its name or its number counted from 0.

        Raises:
            HodorError: no such frame, or a number that may mean two frames.
        """
        names = self.names or ()
        if key in names:
            return names.index(key)
        if not key.isdecimal():
            raise HodorError(f"{self.path}: has no frame {key!r}; use a frame's name, or its number counted from 0")
        number = int(key)
        same = [i for i, name in enumerate(names) if name.isdecimal() and int(name) == number]
        if same and same != [number]:
            either = " or ".join([names[same[0]], *names[number : number + 1]])
            meanings = f"the frame {names[same[0]]} or the frame number {number} from 0"
            raise HodorError(f"{self.path}: {key} may be {meanings}; write the name, {either}")
        if self.count is not None and number >= self.count:
            raise HodorError(f"{self.path}: has no frame {key}, only {self.count} frames, counted from 0")
        return number


def open_frames(path: str | Path, rate: Fraction | None = None) -> FrameSource:
    """Open a video file or a folder of images; raise HodorError if there is no video, or it is damaged at its start."""
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, rate)
    if not path.is_file():
        raise HodorError(f"{path}: no such video; use a video file or a folder of images")
    return VideoFile(path, rate)


class ImageFolder(FrameSource):
    """A folder of JPEG or of PNG images in natural order (2 before 10), turned upright by their EXIF orientation.

    Raises:
        HodorError: no image, two of one name, or a file that does not belong to the frames: with another ending, or
            with a name of another form than the rest (`00000_mask.png` among `00000.png`, `00001.png`).
    """

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        files = [file for file in path.iterdir() if not file.is_dir() and file.name[0] != "."]
        files = [file for file in files if file.name.lower() not in ("thumbs.db", "desktop.ini")]
        if not any(file.suffix.lower() in IMAGE_ENDINGS for file in files):
            raise HodorError(f"{path}: no image here ({', '.join(IMAGE_ENDINGS)}); use the folder of a video's frames")
        self.files = sorted(files, key=lambda file: (natural(file.stem), file.name))
        if lost := [file for file in self.files if not file.is_file()]:
            raise HodorError(f"{lost[0]}: not a file, or a link to an absent one; get the frame, or remove the entry")
        for before, after in zip(self.files, self.files[1:], strict=False):
            if natural(before.stem) == natural(after.stem):  # 1.png and 00001.png too
                raise HodorError(f"{before} and {after.name}: two files of one frame; move one to another folder")
        self._require_alike(lambda file: file.suffix.lower().replace("jpeg", "jpg"), always=True)
        self._require_alike(lambda file: re.sub(r"\d+", "0", file.stem), always=False)
        self.path, self.rate, self.count = path, rate or FOLDER_RATE, len(files)
        self.names = tuple(file.stem for file in self.files)
        self.size = read_size(self.files[0])

    def _require_alike(self, form: Callable[[Path], str], *, always: bool) -> None:
        """Refuse files whose form is not the most common one, without `always` only if several files have that."""
        forms = Counter(map(form, self.files))
        most, number = max(forms.items(), key=lambda item: (item[0] in IMAGE_ENDINGS, item[1]))
        if len(forms) > 1 and (always or number > 1):
            odd = next(file for file in self.files if form(file) != most)
            raise HodorError(
                f"{odd}: not a frame like the other files of its folder; move masks and other files to another folder"
            )

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, file in zip(self.names, self.files, strict=True):
            yield name, read_rgb(file, self.size)


class VideoFile(FrameSource):
    """The first video stream of a file, turned and mirrored by its display matrix."""

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        self.path, self.count = path, None
        self.done = 0  # number of decoded frames
        with self._opened() as (container, stream):
            check_pixels(path, stream.width, stream.height)
            self.rate = rate or stream.average_rate or FOLDER_RATE
            if container.format.name != "avi":  # AVI counts frames that its recorder dropped
                self.count = stream.frames or None
            first = next(container.decode(stream), None)
            if first is None:
                raise HodorError(f"{path}: contains no frame; use another video")
            self.size = upright(first).shape[:2]

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        self.done = hidden = 0
        with self._opened() as (container, stream):
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise self._broken()
                # Frames that were cut off without encoding again are in the file, hidden by its edit list.
                hidden += packet.is_discard
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise self._broken()
                    image = upright(frame)
                    if image.shape[:2] != self.size:
                        sizes = [f"{width}x{height}" for height, width in (image.shape[:2], self.size)]
                        raise HodorError(
                            f"{self.path}: frame {self.done:05d} has {sizes[0]} pixels, the first {sizes[1]}; cut the video there"
                        )
                    yield f"{self.done:05d}", image
                    self.done += 1
        missing = self.count is not None and self.done + hidden < self.count
        if missing or self.path.stat().st_size < declared_size(self.path):
            raise self._broken()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the container and its first video stream; FFmpeg's errors become a HodorError."""
        import av

        try:
            # Absolute, because FFmpeg interprets the text before a colon as a protocol.
            container = av.open(str(self.path.absolute()), metadata_errors="replace")
        except av.error.FFmpegError as error:
            reason = f"not a video that FFmpeg reads, or damaged ({error.strerror})"
            raise HodorError(f"{self.path}: {reason}; convert it, or copy it again") from error
        with container:
            if not container.streams.video:
                raise HodorError(f"{self.path}: has no video stream; use another file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise HodorError(f"{self.path}: unknown codec, or damaged; convert it, or copy it again")
            try:
                yield container, stream
            except av.error.FFmpegError as error:
                raise self._broken() from error

    def _broken(self) -> HodorError:
        of = f" of {self.count}" if self.count else ""
        return HodorError(
            f"{self.path}: damaged or cut off at frame {self.done:05d}{of}; copy the video again, or cut it there"
        )


def declared_size(path: Path) -> int:
    """Return the size in bytes that is recorded in a Matroska, WebM or AVI file, or 0.

    FFmpeg reads such a file without an error if its end is missing.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1aE\xdf\xa3":  # EBML header, followed by the segment with all frames
        return 0
    size, position = _ebml_size(head, 4)
    position += size
    if head[position : position + 4] != b"\x18S\x80g":
        return 0
    size, position = _ebml_size(head, position + 4)
    return position + size if size else 0


def _ebml_size(head: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length size, 0 if unknown as in live streams, and the position after it."""
    if position >= len(head) or head[position] == 0:
        return 0, position
    length = 9 - head[position].bit_length()
    bits = int.from_bytes(head[position : position + length], "big") & ((1 << 7 * length) - 1)
    return (0 if bits == (1 << 7 * length) - 1 else bits), position + length


def upright(frame) -> np.ndarray:
    """Return a decoded frame as uint8 RGB (H, W, 3), turned (by quarters) and mirrored by its display matrix."""
    image = frame.to_ndarray(format="rgb24")
    try:
        matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # PyAV knows not all types of side data, such as the EXIF data of a camera
        return np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
    if matrix is None:
        return image
    # A point (x, y) is displayed at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    swapped = abs(a) + abs(d) < abs(b) + abs(c)
    across, down = (c, b) if swapped else (a, d)
    image = image.swapaxes(0, 1) if swapped else image
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def natural(name: str) -> tuple:
    """Return a sort key that compares numbers in names as numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


class VideoWriter:
    """Write frames to a .mp4, one by one (H.264 if FFmpeg has it, else MPEG-4).

    A context manager: after an error too, the file plays, with the frames written so far.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        self.path, self.rate = path, rate
        # Both codecs halve the colour planes: an odd side is extended by one row or column.
        self.pad = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB (H, W, 3)."""
        import av

        image = np.pad(frame, self.pad, mode="edge")
        if self._container is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._container = av.open(str(self.path.absolute()), "w", format="mp4")
            self._stream = self._container.add_stream(codec, rate=self.rate.limit_denominator(65535))
            self._stream.height, self._stream.width, self._stream.pix_fmt = *image.shape[:2], "yuv420p"
            if codec == "libx264":
                self._stream.options = {"crf": "18", "preset": "veryfast"}
            else:
                self._stream.bit_rate = 8_000_000
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

    def __exit__(self, *exception) -> None:
        if self._container is not None:
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a frame, uint8 RGB (H, W, 3), with its labels, uint8 (H, W), over it.

    Objects are tinted half with their colour of the DAVIS palette. Inside their edges is a white line and beside it one of
    their colour, each as wide as a 320th of the short side, at least one pixel.
    """
    inside, out = labels > 0, frame.copy()
    if not inside.any():
        return out
    colours = DAVIS_PALETTE[labels]
    out[inside] = cv2.addWeighted(colours, 0.5, frame, 0.5, 0)[inside]
    width = max(1, round(min(labels.shape) / 320))
    for distance, colour in ((2 * width, colours), (width, np.full_like(frame, 255))):
        kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
        border = inside & (cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, kernel) > 0)  # a pixel of another label is near
        out[border] = colour[border]
    return out
