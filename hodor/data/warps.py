"""Geometric warps as 3x3 homographies, composed first and applied once: one resampling a frame.

A homography maps pixel positions (x, y) of the source image to positions of the output; pixel i covers [i, i + 1), its
centre is at i + 0.5. Sizes are (height, width) in pixels.
"""

import cv2
import numpy as np

from hodor.data.label_maps import unused

Size = tuple[int, int]

Frame = tuple[np.ndarray, np.ndarray, np.ndarray]
"""uint8 (h, w, 3), uint8 (h, w), bool (h, w): image, labels, where the image is shown."""


def scaling(source: Size, target: Size) -> np.ndarray:
    """Map the whole source image onto the whole target."""
    return np.diag([target[1] / source[1], target[0] / source[0], 1.0])


def flip(size: Size) -> np.ndarray:
    """Mirror left and right."""
    return np.array([[-1.0, 0, size[1]], [0, 1, 0], [0, 0, 1]])


def crop(size: Size, top: float, left: float, height: float, width: float) -> np.ndarray:
    """Cut a box and stretch it over the whole image."""
    scale_x, scale_y = size[1] / width, size[0] / height
    return np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1.0]])


def zoom(size: Size, across: float, down: float) -> np.ndarray:
    """Scale about the centre by a factor for the width and one for the height; the canvas keeps its size."""
    height, width = size
    return np.array([[across, 0, width * (1 - across) / 2], [0, down, height * (1 - down) / 2], [0, 0, 1.0]])


def move(across: float, down: float) -> np.ndarray:
    """Move right and down, in pixels."""
    return np.array([[1, 0, across], [0, 1, down], [0, 0, 1.0]])


def affine(size: Size, *, shift: tuple[float, float], rotation: float, shear: float) -> np.ndarray:
    """Shear, rotate (degrees, about the centre), then shift (fractions of width and height)."""
    angle, slant = np.deg2rad(rotation), np.tan(np.deg2rad(shear))
    cos, sin = np.cos(angle), np.sin(angle)
    height, width = size
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, slant, 0], [0, 1, 0], [0, 0, 1]])
    back = np.array([[1, 0, width * (0.5 + shift[0])], [0, 1, height * (0.5 + shift[1])], [0, 0, 1]])
    return back @ turn @ centre


def perspective(size: Size, corners: np.ndarray) -> np.ndarray:
    """Stretch the quadrilateral whose corners lie `corners` (4, 2) inside the image's (fractions) over the image."""
    height, width = size
    signs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)  # top left, top right, bottom right, bottom left
    full = signs * [width, height]
    inner = (signs + corners * (1 - 2 * signs)) * [width, height]
    return cv2.getPerspectiveTransform(inner.astype(np.float32), full.astype(np.float32)).astype(np.float64)


def apply(
    image: np.ndarray,
    labels: np.ndarray,
    homography: np.ndarray,
    size: Size,
    *,
    cubic: bool = False,
    keep_edge: bool = False,
) -> Frame:
    """Warp an image (bilinear or `cubic`) and its labels (nearest) by one homography.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        homography: from source to output positions.
        size: of the output.

    Returns:
        Image uint8 (h, w, 3), labels uint8 (h, w), and where the output shows the source, bool (h, w). Outside, image
        and labels are 0. With `keep_edge` the image's border is repeated there and counts as shown.
    """
    moved, valid = apply_labels(labels, homography, size, keep_edge=keep_edge)
    return apply_image(image, homography, valid, cubic=cubic), moved, valid


def apply_labels(
    labels: np.ndarray, homography: np.ndarray, size: Size, *, keep_edge: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The labels of `apply` and where the output shows the source: one resampling for both."""
    whole = keep_edge or _shows_source_alone(labels.shape, homography, size)
    # What comes from outside gets a label that no pixel of the source has.
    mark = 0 if whole else unused(labels)
    matrix, where = _between_centres(homography), (size[1], size[0])
    moved = cv2.warpPerspective(labels, matrix, where, flags=cv2.INTER_NEAREST, borderValue=mark or 0)
    if whole:
        return moved, np.ones(size, bool)
    if mark is None:
        return moved, covers(labels.shape, homography, size)
    valid = moved != mark
    moved *= valid.view(np.uint8)
    return moved, valid


def apply_image(
    image: np.ndarray,
    homography: np.ndarray,
    valid: np.ndarray,
    *,
    cubic: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The image of `apply`: 0 where the output does not show the source (`valid` (h, w) is False).

    It is written into `out`, uint8 (h, w, 3), where given.
    """
    matrix, where = _between_centres(homography), valid.shape[::-1]
    # The border is repeated rather than faded, so that the edge of the source keeps its colour; `valid` cuts it off.
    border = cv2.BORDER_REPLICATE
    if cubic:
        out = cv2.warpPerspective(image, matrix, where, dst=out, flags=cv2.INTER_CUBIC, borderMode=border)
    else:
        # OpenCV reads four channels at once: the same pixels in half of the time.
        four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        four = cv2.warpPerspective(four, matrix, where, flags=cv2.INTER_LINEAR, borderMode=border)
        out = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=out)
    return black_out(out, valid)


def black_out(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Sets the pixels of an image (h, w, 3) to 0 where `valid` (h, w) is False, in place; returns it."""
    if not valid.all():
        cv2.copyTo(np.zeros_like(image), np.logical_not(valid).view(np.uint8), image)
    return image


def read_at(image: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> Frame:
    """Read an image (bicubic) and its labels (nearest) at any positions.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        positions: float32 (h, w, 2), x and y in the image.

    Returns:
        Image, labels and where the positions lie in the image, as `apply` does; outside, image and labels are 0.
    """
    # OpenCV puts pixel centres at whole numbers.
    at = cv2.subtract(positions, (0.5, 0.5, 0, 0))
    read = cv2.remap(image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(labels, at, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    valid = inside(positions, labels.shape)
    moved *= valid.view(np.uint8)
    return black_out(read, valid), moved, valid


def covers(source: Size, homography: np.ndarray, target: Size) -> np.ndarray:
    """Which pixels of the target lie in an image of size `source` under the homography: bool (h, w)."""
    if _shows_source_alone(source, homography, target):
        return np.ones(target, bool)
    shown = np.ones(source, np.uint8)
    matrix = _between_centres(homography)
    return cv2.warpPerspective(shown, matrix, (target[1], target[0]), flags=cv2.INTER_NEAREST).view(bool)


def positions_through(homography: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where an affine map takes positions, float32 (h, w, 2) as x and y; the last row must be 0, 0, 1."""
    return cv2.transform(positions, homography[:2].astype(np.float32))


def inside(positions: np.ndarray, size: Size) -> np.ndarray:
    """Which positions (h, w, 2), x and y, lie in an image of `size`: bool (h, w)."""
    # The largest numbers below the sides: OpenCV's range includes its ends.
    right, bottom = (float(np.nextafter(np.float32(side), np.float32(0))) for side in (size[1], size[0]))
    return cv2.inRange(positions, (0, 0, 0, 0), (right, bottom, 0, 0)).view(np.uint8).astype(bool)


def shrink(image: np.ndarray, labels: np.ndarray, target: Size) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a picture to about `target` by area averaging where it is far larger, so that a warp does not alias."""
    return shrink_image(image, target), shrink_labels(labels, target)


def shrink_image(image: np.ndarray, target: Size) -> np.ndarray:
    """The image of `shrink`."""
    return cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA) if _far_larger(image, target) else image


def shrink_labels(labels: np.ndarray, target: Size) -> np.ndarray:
    """The labels of `shrink`."""
    return cv2.resize(labels, target[::-1], interpolation=cv2.INTER_NEAREST) if _far_larger(labels, target) else labels


def _far_larger(image: np.ndarray, target: Size) -> bool:
    return image.shape[0] >= 1.5 * target[0]


def _between_centres(homography: np.ndarray) -> np.ndarray:
    """The homography between positions as OpenCV counts them: pixel centres at whole numbers."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(half) @ homography @ half


def _shows_source_alone(source: Size, homography: np.ndarray, target: Size) -> bool:
    """Whether every pixel of the target lies in the source for certain: the corners do, and so what is between them."""
    right, bottom = target[1] - 0.5, target[0] - 0.5
    corners = np.array([[0.5, right, 0.5, right], [0.5, 0.5, bottom, bottom], [1, 1, 1, 1]])
    _, inverse = cv2.invert(homography)  # zeros where there is none
    x, y, w = inverse @ corners
    if not (w > 0).all():
        return False
    x, y, edge = x / w, y / w, 0.01  # OpenCV rounds to parts of a pixel
    return bool(x.min() > edge and x.max() < source[1] - edge and y.min() > edge and y.max() < source[0] - edge)
