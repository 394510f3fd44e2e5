"""Videos of users: a file that FFmpeg reads (mp4, mov, webm, ...) or a folder of images; frames in, overlays out.

One frame is in memory at a time, whatever the length. PyAV (`av`) is imported only when a video file is read or
written.
"""

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from hodor.data.images import DAVIS_PALETTE, check_pixels, read_rgb, read_size
from hodor.errors import HodorError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
FOLDER_RATE = Fraction(24)
"""Frames per second of an overlay whose video is a folder of images (those of DAVIS)."""

# Files that operating systems put into folders of images.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


class FrameSource:
    """The frames of a video, in order.

    Attributes:
        path: file or folder. size: (height, width) in pixels, of every frame. rate: frames per second.
        count: number of frames, None where the file does not say.
        names: of all frames in a folder; None for a file, whose frames are named 00000, 00001, ...
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    count: int | None
    names: tuple[str, ...] | None = None

    def frames(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, uint8 RGB (H, W, 3)); HodorError names a frame that is damaged or of another size."""
        raise NotImplementedError

    def index(self, key: str) -> int:
        """Return the number of the frame that a user calls `key`: its name, or its number counted from 0.

        Raises:
            HodorError: no such frame, or a number that may mean two frames.
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
    """Open a video file or a folder of images; HodorError if there is no video, or it is damaged at its start."""
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, rate)
    if not path.is_file():
        raise HodorError(f"{path}: no such video; give a video file or a folder of images")
    return VideoFile(path, rate)


class ImageFolder(FrameSource):
    """A folder of JPEG or of PNG images in natural order (2 before 10), upright as their EXIF orientation says.

    Raises:
        HodorError: no image, two of one name, or a file that does not belong to the frames: of another ending, or
            whose name has another form than the rest (`00000_mask.png` among `00000.png`, `00001.png`).
    """

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        files = [file for file in path.iterdir() if file.is_file() and file.name[0] != "."]
        files = [file for file in files if file.name.lower() not in _SYSTEM_FILES]
        if not any(file.suffix.lower() in IMAGE_ENDINGS for file in files):
            raise HodorError(f"{path}: no image here ({', '.join(IMAGE_ENDINGS)}); give the folder of a video's frames")
        self.files = sorted(files, key=lambda file: (natural(file.stem), file.name))
        for before, after in zip(self.files, self.files[1:], strict=False):
            if before.stem == after.stem:
                raise HodorError(f"{before} and {after.name}: two files of one frame; move one to another folder")
        self._require_alike(lambda file: file.suffix.lower().replace("jpeg", "jpg"), always=True)
        self._require_alike(lambda file: re.sub(r"\d+", "0", file.stem), always=False)
        self.path, self.rate, self.count = path, rate or FOLDER_RATE, len(files)
        self.names = tuple(file.stem for file in self.files)
        self.size = read_size(self.files[0])

    def _require_alike(self, form, *, always: bool) -> None:
        """Refuse files whose form is not the most common one; without `always` only where that is the form of several."""
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
    """The first video stream of a file, upright and unmirrored as its display matrix says."""

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        import av

        self.path = path
        with self._open() as container:
            stream = self._stream(container)
            check_pixels(path, stream.width, stream.height)
            self.rate = rate or stream.average_rate or FOLDER_RATE
            # AVI counts frames that its recorder dropped; its length is checked in bytes.
            self.count = None if container.format.name == "avi" else stream.frames or None
            try:
                first = next(container.decode(stream), None)
            except av.error.FFmpegError as error:
                raise self._broken(0) from error
            if first is None:
                raise HodorError(f"{path}: holds no frame")
            self.size = upright(first).shape[:2]

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
                    # Frames that were cut off without encoding again are in the file, hidden by its edit list.
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
        if (self.count is not None and done + hidden < self.count) or self.path.stat().st_size < declared_size(
            self.path
        ):
            raise self._broken(done)

    def _open(self):
        import av

        try:
            # Absolute: FFmpeg takes what precedes a colon for a protocol.
            return av.open(str(self.path.absolute()), metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise HodorError(f"{self.path}: not a video that FFmpeg reads, or damaged ({error.strerror})") from error

    def _stream(self, container):
        if not container.streams.video:
            raise HodorError(f"{self.path}: has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise HodorError(f"{self.path}: of a codec that FFmpeg does not know, or damaged; convert or copy it again")
        return stream

    def _broken(self, frame: int) -> HodorError:
        of = f" of {self.count}" if self.count else ""
        return HodorError(
            f"{self.path}: damaged or cut off at frame {frame:05d}{of}; copy the video again, or cut it there"
        )


def declared_size(path: Path) -> int:
    """Return the size in bytes that a Matroska, WebM or AVI file says it has, 0 where it does not say.

    FFmpeg ends such a file without an error where it was cut off.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1aE\xdf\xa3":  # the EBML header, which the segment with all frames follows
        return 0
    size, position = _ebml_size(head, 4)
    position += size
    if head[position : position + 4] != b"\x18S\x80g":
        return 0
    size, position = _ebml_size(head, position + 4)
    return position + size if size else 0


def _ebml_size(head: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length size (0 if unknown, as in live streams) and the position after it."""
    if position >= len(head) or head[position] == 0:
        return 0, position
    length = 9 - head[position].bit_length()
    bits = int.from_bytes(head[position : position + length], "big") & ((1 << 7 * length) - 1)
    return (0 if bits == (1 << 7 * length) - 1 else bits), position + length


def upright(frame) -> np.ndarray:
    """Return a decoded frame as uint8 RGB (H, W, 3), turned and mirrored as its display matrix says (quarter turns)."""
    image = frame.to_ndarray(format="rgb24")
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return image
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    swapped = abs(a) + abs(d) < abs(b) + abs(c)
    across, down = (c, b) if swapped else (a, d)
    image = image.swapaxes(0, 1) if swapped else image
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def natural(name: str) -> tuple:
    """Return a sort key that compares numbers in names as numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


class VideoWriter:
    """Write frames to a .mp4 as they come (H.264 where FFmpeg has it, else MPEG-4).

    A context manager: also after an error the file plays, with the frames written so far.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        self.path, self.rate = path, rate
        # Both codecs halve the colour planes: an odd side is extended by one row or column.
        self.pad = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._container = self._stream = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB (H, W, 3)."""
        import av

        if self._container is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._container = av.open(str(self.path.absolute()), "w", format="mp4")
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


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a frame, uint8 RGB (H, W, 3), with its labels, uint8 (H, W), over it.

    Objects are tinted half with their colour of the DAVIS palette. Inside their edges runs a white line with one of
    their colour beside it, each as wide as a 320th of the short side, at least one pixel.
    """
    inside = labels > 0
    if not inside.any():
        return frame.copy()
    colours = DAVIS_PALETTE[labels]
    out = frame.copy()
    sums = colours[inside].astype(np.uint16) + frame[inside]
    out[inside] = (sums + (sums >> 1 & 1)) >> 1  # halves are rounded to even
    width = max(1, round(min(labels.shape) / 320))
    line, rim = (_border(labels, distance) & inside for distance in (width, 2 * width))
    out[rim] = colours[rim]
    out[line] = 255
    return out


def _border(labels: np.ndarray, distance: int) -> np.ndarray:
    """Return the pixels at most `distance` pixels away from one of another label, bool (H, W)."""
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    return cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
