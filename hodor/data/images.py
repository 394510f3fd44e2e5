"""Strict reading and writing of frames (JPEG, PNG) and label maps (PNG).

Common decoders are lenient: OpenCV returns a truncated JPEG with grey below, Pillow ignores a missing end marker, and
neither detects a mask that an editor has smoothed or recoloured. Here a file decodes completely and its labels are
plausible ids, or `HodorError` names it.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from hodor.errors import HodorError

VOID = 255  # label of void (ignored) pixels in DAVIS and PASCAL VOC; readers keep it
MOST_PIXELS = 1 << 26  # larger images are refused before they are decoded; a frame of 8K video has half of these pixels

# Pillow's own limits are higher; `_unreadable` handles its error beyond the second one.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

AGAIN = "get it again from its source"  # callers that know better replace it
_TOO_LARGE = f"{{}}: {{}} pixels, more than the {MOST_PIXELS:,} that are read; make it smaller"
_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

# Bit 3 * i + c of a label is bit 7 - i of colour c: (256, 3 colours, 8 bits).
_BITS = np.arange(256)[:, None, None] >> (np.arange(3)[:, None] + 3 * np.arange(8)) & 1
DAVIS_PALETTE = np.packbits(_BITS, axis=-1)[..., 0]
DAVIS_PALETTE.setflags(write=False)
"""uint8 (256, 3), read-only: RGB colour of each label in the masks of DAVIS, the colour map of PASCAL VOC."""

_DAVIS_LABELS = {tuple(colour): label for label, colour in enumerate(DAVIS_PALETTE.tolist())}


def read_rgb(path: str | os.PathLike, size: tuple[int, int] | None = None, *, upright: bool = True) -> np.ndarray:
    """Decode an image. Grayscale, palette and CMYK images become RGB.

    Args:
        path: JPEG or PNG file.
        size: expected (height, width) in pixels; not checked if None.
        upright: apply the EXIF orientation, as viewers do. The annotations of COCO and of other still images refer to
            the stored pixels instead.

    Returns:
        uint8 (H, W, 3), RGB, owned by the caller.

    Raises:
        HodorError: absent, truncated or corrupt file, more than 8 bits a channel, or another size.
    """
    image, _ = _decode(path, ("JPEG", "PNG"), upright)
    if image.mode not in _COLOUR_MODES:
        raise HodorError(f"{path}: pixel format {image.mode} is not supported; convert it to an 8-bit JPEG or PNG")
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    _check_size(path, pixels.shape[:2], size)
    return pixels


def read_labels(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a label map: the palette index or the stored grey level is the object id, 0 background, 255 void.

    Palette and grey PNGs of 1, 2, 4 and 8 bits are read as stored: a 1-bit mask holds 0 and 1. An opaque alpha channel
    beside the grey one is ignored. EXIF orientation is applied, as to frames.

    Args:
        path: PNG file with one channel.
        size: expected (height, width) in pixels; not checked if None.

    Returns:
        uint8 (H, W), owned by the caller.

    Raises:
        HodorError: absent, truncated or corrupt file, colours instead of indices, a palette that contradicts the
            indices, anti-aliased edges, or another size.
    """
    image, content = _decode(path, ("PNG",), upright=True)
    depth = content[24]
    if image.mode == "LA" and depth == 8 and image.getextrema()[1] == (255, 255):
        image = image.getchannel(0)
    if image.mode not in ("1", "L", "P"):
        raise HodorError(
            f"{path}: a {image.mode} image where a palette PNG is needed (index = object id, 0 background); "
            f"save the mask with indices, or {AGAIN}"
        )
    labels = np.array(image, np.uint8)
    if image.mode == "L" and depth < 8:
        labels //= 255 // (2**depth - 1)  # Pillow stretches grey levels to 0..255
    _check_size(path, labels.shape, size)
    palette = None if image.mode != "P" else np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if palette is not None and len(palette) > 1 and np.array_equal(palette, DAVIS_PALETTE[: len(palette)]):
        return labels  # the usual case: indices are right, and counting them would take a fifth of the time
    # Pillow counts several times faster than numpy, but in stretched levels.
    counts = np.bincount(labels.ravel(), minlength=256) if depth < 8 else np.array(image.histogram())
    if palette is not None:
        _check_palette(path, counts, palette)
    if palette is None or (palette == palette[:, :1]).all():
        _check_edges(path, labels, counts)
    return labels


def read_size(path: str | os.PathLike, *, upright: bool = True) -> tuple[int, int]:
    """Return (height, width) in pixels, reading only the header; `upright` as in `read_rgb`."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            check_pixels(path, *image.size)
            turned = upright and _orientation(image) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except (HodorError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def check_pixels(path: str | os.PathLike, width: int, height: int) -> None:
    """Raise HodorError for a frame or mask of more than `MOST_PIXELS`."""
    if width * height > MOST_PIXELS:
        raise HodorError(_TOO_LARGE.format(path, f"{width}x{height}"))


def encode_labels(labels: np.ndarray) -> bytes:
    """Encode labels, uint8 (H, W), as an 8-bit palette PNG with the DAVIS palette. Same labels, same bytes."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    image = Image.fromarray(np.ascontiguousarray(labels), mode="L")
    image.putpalette(DAVIS_PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def write_labels(path: str | os.PathLike, labels: np.ndarray) -> None:
    """Write labels, uint8 (H, W), as a palette PNG, atomically: a killed writer leaves no incomplete mask."""
    path = Path(path)
    content = encode_labels(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _decode(path: str | os.PathLike, formats: tuple[str, ...], upright: bool) -> tuple[Image.Image, bytes]:
    try:
        content = Path(path).read_bytes()
        image = Image.open(io.BytesIO(content), formats=formats)
        check_pixels(path, *image.size)
        image.load()
        if image.format == "PNG":
            Image.open(io.BytesIO(content)).verify()  # compares checksums, which `load` does not
    except (HodorError, MemoryError):
        raise
    except Exception as error:  # decoders raise any exception on damaged input
        raise _unreadable(path, error) from error
    if image.format == "PNG" and _PNG_END not in content:
        raise HodorError(f"{path}: truncated PNG (no end chunk); {AGAIN}")
    if image.format == "JPEG" and (damage := _jpeg_damage(content)):
        raise HodorError(f"{path}: {damage}; {AGAIN}")
    return (ImageOps.exif_transpose(image) if upright and _orientation(image) > 1 else image), content


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where none is stored or the metadata are broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _check_palette(path: str | os.PathLike, counts: np.ndarray, palette: np.ndarray) -> None:
    """Raise HodorError for a mask whose colours contradict its indices: an editor has reordered the palette."""
    used = np.flatnonzero(counts[: len(palette)])
    colours = palette[used]
    black = ~colours.any(axis=1)
    advice = "a tool has reordered the palette: save the mask with index = object id and black as index 0"
    if used.size and used[0] == 0 and not black[0]:
        raise HodorError(
            f"{path}: index 0 is the background, but its colour {tuple(colours[0].tolist())} is not black; {advice}"
        )
    if used.size > 1 and used[0] > 0 and black.sum() == 1:
        raise HodorError(f"{path}: index {used[black][0]} is black, as only the background is; {advice}")
    meant = {int(i): _DAVIS_LABELS.get(tuple(c)) for i, c in zip(used, colours.tolist(), strict=True) if i != VOID}
    wrong = next(((index, label) for index, label in meant.items() if index != label), None)
    if wrong and None not in meant.values() and not (colours == colours[:, :1]).all():
        raise HodorError(f"{path}: index {wrong[0]} has the DAVIS colour of label {wrong[1]}; {advice}")


def _check_edges(path: str | os.PathLike, labels: np.ndarray, counts: np.ndarray) -> None:
    """Raise HodorError for an anti-aliased grey mask: its levels between 0 and the maximum exist only along edges."""
    top = int(np.flatnonzero(counts).max(initial=0))
    between = np.flatnonzero(counts[1:top]) + 1
    if top < 32 or len(between) < 2:  # below, a few thin levels are the specks of a prediction
        return
    corner = labels[:-1, :-1]
    block = (corner == labels[1:, 1:]) & (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:])
    thin = np.setdiff1d(between, corner[block])
    ramp = len(between) > 16 and counts[between].sum() < counts[top]
    if len(thin) == len(between) or (len(thin) >= 3 and 2 * len(thin) > len(between)) or ramp:
        raise HodorError(
            f"{path}: {len(between)} grey levels between 0 and {top}: an anti-aliased mask, not object ids; threshold "
            "it (for one object: 255 where the level is above 127, 0 elsewhere)"
        )


def _jpeg_damage(content: bytes) -> str | None:
    """Return what is wrong with a JPEG that decoded, or None.

    A decoder accepts a file whose last bytes are missing, if they are few, or zero (the disk was full). In compressed
    data 0xFF is followed by 0x00 or a restart marker, so an end marker behind the start of the scan is the real one.
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


def _check_size(path: str | os.PathLike, found: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and tuple(found) != tuple(expected):
        sizes = f"{found[1]}x{found[0]} pixels (width x height) where {expected[1]}x{expected[0]} are expected"
        raise HodorError(f"{path}: {sizes}; {AGAIN}")


def _unreadable(path: str | os.PathLike, error: Exception) -> HodorError:
    if isinstance(error, FileNotFoundError):
        return HodorError(f"{path}: no such file; {AGAIN}")
    if isinstance(error, OSError) and error.errno is not None:
        return HodorError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk")
    if isinstance(error, Image.DecompressionBombError):
        return HodorError(_TOO_LARGE.format(path, "too many"))
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if "cannot identify image file" in reason:
        reason = "not an image of the expected format, or its first bytes are lost"
    return HodorError(f"{path}: truncated or damaged image ({reason}); {AGAIN}")
