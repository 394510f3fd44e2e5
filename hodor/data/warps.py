"""Geometric warps as 3x3 homographies, composed first and applied once: one resampling a frame.

A homography maps pixel positions (x, y) of the source image to positions of the output; pixel i covers [i, i + 1), its
centre is at i + 0.5. Sizes are (height, width) in pixels.
"""

import cv2
import numpy as np

Size = tuple[int, int]


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
) -> tuple[np.ndarray, ...]:
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
    # OpenCV puts pixel centres at whole numbers.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ homography @ half
    where = (size[1], size[0])
    shown = np.full(image.shape[:2], 255, np.uint8)
    # The border is repeated rather than faded, so that the edge of the source keeps its colour; `valid` cuts it off.
    reading = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    warped = cv2.warpPerspective(image, matrix, where, flags=reading, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.warpPerspective(labels, matrix, where, flags=cv2.INTER_NEAREST)
    if keep_edge:
        return warped, moved, np.ones(size, bool)
    valid = cv2.warpPerspective(shown, matrix, where, flags=cv2.INTER_NEAREST) > 0
    warped[~valid] = 0
    return warped, moved, valid


def read_at(image: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Read an image (bicubic) and its labels (nearest) at any positions.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        positions: float32 (h, w, 2), x and y in the image.

    Returns:
        Image, labels and where the positions lie in the image, as `apply` does; outside, image and labels are 0.
    """
    # OpenCV puts pixel centres at whole numbers.
    at = positions - np.float32(0.5)
    read = cv2.remap(image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(labels, at, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    valid = inside(positions, labels.shape)
    read[~valid], moved[~valid] = 0, 0
    return read, moved, valid


def covers(source: Size, homography: np.ndarray, target: Size) -> np.ndarray:
    """Which pixels of the target lie in an image of size `source` under the homography: bool (h, w)."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ homography @ half
    shown = np.full(source, 255, np.uint8)
    return cv2.warpPerspective(shown, matrix, (target[1], target[0]), flags=cv2.INTER_NEAREST) > 0


def positions_through(homography: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where an affine map takes positions, float32 (h, w, 2) as x and y; the last row must be 0, 0, 1."""
    return cv2.transform(positions, homography[:2].astype(np.float32))


def inside(positions: np.ndarray, size: Size) -> np.ndarray:
    """Which positions (h, w, 2), x and y, lie in an image of `size`: bool (h, w)."""
    x, y = positions[..., 0], positions[..., 1]
    return (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])


def shrink(image: np.ndarray, labels: np.ndarray, target: Size) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a picture to about `target` by area averaging where it is far larger, so that a warp does not alias."""
    if image.shape[0] < 1.5 * target[0]:
        return image, labels
    where = (target[1], target[0])
    return (
        cv2.resize(image, where, interpolation=cv2.INTER_AREA),
        cv2.resize(labels, where, interpolation=cv2.INTER_NEAREST),
    )
