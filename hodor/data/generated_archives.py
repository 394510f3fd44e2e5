"""Archives whose bytes depend on their content alone, and that are whole or absent."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from hodor.errors import HodorError

# The earliest date that tools of all kinds show sensibly; a real time would change the bytes from run to run.
_TIME = (2020, 1, 1, 0, 0, 0)


class Archive:
    """A zip file being written; members are stored as they are, without a time and without compression."""

    def __init__(self, target: zipfile.ZipFile) -> None:
        self._target = target

    def add(self, name: str, content: bytes) -> None:
        """Appends a member."""
        info = zipfile.ZipInfo(name, date_time=_TIME)
        info.create_system = 3  # Unix, on every system
        info.external_attr = 0o100644 << 16
        self._target.writestr(info, content)


@contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """Opens `path` for writing under a temporary name beside it; it gets its own name once it is whole.

    Raises:
        HodorError: the file cannot be written; nothing is left behind, an older file stays as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target:
                yield Archive(target)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise HodorError(
            f"{path}: cannot write this archive ({error.strerror or error}); "
            "free some disk space or choose a folder that can be written to"
        ) from error
    finally:
        # After success the temporary name is gone; a folder that cannot be written to holds none.
        try:
            part.unlink(missing_ok=True)
        except OSError:
            pass


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 (H, W, 3) RGB or (H, W) grey; colours at full resolution (4:4:4), for frames are small."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, content = cv2.imencode(".jpg", pixels, flags)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return content.tobytes()
