"""Strict reading and writing of frames (JPEG, PNG) and label masks (8-bit palette PNG).

Common decoders are lenient: OpenCV returns the decoded upper part of a truncated JPEG with grey below and prints a
warning; Pillow does not notice a lost end marker. A wrong frame then trains and scores silently. Here a file decodes
completely or raises `HodorError` with its name: JPEGs must carry their end marker and decode to the last row, PNGs
must be whole, every chunk agreeing with its checksum.

EXIF orientation is not applied: COCO's annotations and sizes refer to the stored pixels.
"""

import io
import os
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from hodor.errors import HodorError

VOID = 255
"""Label of pixels without a decision (DAVIS). Readers keep it; losses and scores decide what it means."""

_AGAIN = "take it from its archive again"
_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def _davis_palette() -> np.ndarray:
    """Bit-interleaved colour map of PASCAL VOC, which DAVIS-2017's masks carry."""
    index = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    palette.setflags(write=False)
    return palette


DAVIS_PALETTE = _davis_palette()
"""uint8 (256, 3), read-only: RGB colour of each label in DAVIS's masks (488 of 533 official masks seen carry it)."""


def read_rgb(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes an image. Grayscale, palette and CMYK images become RGB.

    Args:
        path: JPEG or PNG file.
        size: expected (height, width) in pixels; no check where absent.

    Returns:
        uint8 (H, W, 3), RGB, 0..255, owned by the caller.

    Raises:
        HodorError: absent, truncated or corrupt file, more than 8 bits a channel, or another size.
    """
    image = _decode(path, formats=("JPEG", "PNG"))
    if image.mode not in _COLOUR_MODES:
        raise HodorError(f"{path}: pixel format {image.mode} is not supported; give an 8-bit JPEG or PNG")
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    _check_size(path, pixels.shape[:2], size)
    return pixels


def read_labels(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes a label mask: the palette index (or the grey value) is the object id, 0 background, 255 void.

    Args:
        path: PNG file with one 8-bit channel (palette or grey).
        size: expected (height, width) in pixels; no check where absent.

    Returns:
        uint8 (H, W), owned by the caller; void 255 is kept.

    Raises:
        HodorError: absent, truncated or corrupt file, colours instead of indices, or another size.
    """
    image = _decode(path, formats=("PNG",))
    if image.mode not in ("P", "L"):
        raise HodorError(
            f"{path}: a {image.mode} image where a palette PNG is needed (index = object id, 0 background); "
            "a tool may have saved it anew in colours: " + _AGAIN
        )
    labels = np.array(image)
    _check_size(path, labels.shape, size)
    return labels


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) in pixels from the header alone; the pixels are not decoded and not checked."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            return image.height, image.width
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def encode_labels(labels: np.ndarray) -> bytes:
    """Encodes labels, uint8 (H, W), as an 8-bit palette PNG with the DAVIS palette. Same labels, same bytes."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    image = Image.fromarray(np.ascontiguousarray(labels), mode="L")
    image.putpalette(DAVIS_PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def write_labels(path: str | os.PathLike, labels: np.ndarray) -> None:
    """Writes labels, uint8 (H, W), as a palette PNG; whole or not at all (a killed writer leaves no half mask)."""
    path = Path(path)
    content = encode_labels(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _decode(path: str | os.PathLike, formats: tuple[str, ...]) -> Image.Image:
    try:
        content = Path(path).read_bytes()
        image = Image.open(io.BytesIO(content), formats=formats)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders answer damaged input with any exception
        raise _unreadable(path, error) from error
    damage = _png_damage(content) if image.format == "PNG" else _jpeg_damage(content)
    if damage:
        raise HodorError(f"{path}: {damage}; {_AGAIN}")
    return image


def _jpeg_damage(content: bytes) -> str | None:
    """Says what is wrong with a JPEG that decoded, or None.

    A decoder accepts a file that lost its tail when the lost bytes were few, or when they were replaced by zeros
    (a disk that filled up). Within compressed data 0xFF is always followed by 0x00 or a restart marker, so the end
    marker found behind the start of the scan is the real one.
    """
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return "damaged JPEG (no marker where one must be)"
        marker = content[position + 1]
        if marker == 0xFF:  # padding before a marker
            position += 1
        elif marker == 0xDA:
            return None if content.rfind(b"\xff\xd9", position) >= 0 else "truncated JPEG (no end marker)"
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return "truncated JPEG (no image data)"


def _png_damage(content: bytes) -> str | None:
    """Says what is wrong with a PNG that decoded (checksum of any chunk, lost end), or None."""
    position = 8
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return "damaged PNG (wrong checksum)"
        if content[position + 4 : position + 8] == b"IEND":
            return None
        position = end + 4
    return "truncated PNG (no end chunk)"


def _check_size(path: str | os.PathLike, found: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and tuple(found) != tuple(expected):
        raise HodorError(
            f"{path}: {found[1]}x{found[0]} pixels (width x height) where {expected[1]}x{expected[0]} are expected; "
            + _AGAIN
        )


def _unreadable(path: str | os.PathLike, error: Exception) -> HodorError:
    if isinstance(error, FileNotFoundError):
        return HodorError(f"{path}: no such file; {_AGAIN}")
    if isinstance(error, OSError) and error.errno is not None:
        return HodorError(f"{path}: cannot be read ({error.strerror})")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify image file" in reason:
        reason = "not an image of the expected format, or its first bytes are lost"
    return HodorError(f"{path}: truncated or damaged image ({reason}); {_AGAIN}")
