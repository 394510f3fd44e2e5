"""Deterministic transforms of frames and label maps; `augmentations` draws their parameters.

A homography (3, 3) maps positions (x, y) of the source image to positions of the output; pixel i covers [i, i + 1).
Homographies are composed and applied once, so a frame is resampled once. Sizes are (height, width) in pixels.
"""

from collections.abc import Iterable

import cv2
import numpy as np

LABELS = 256  # number of values of a label map

Size = tuple[int, int]

Frame = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image uint8 (h, w, 3), labels uint8 (h, w), and bool (h, w): where the image is shown."""


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
    """Scale width and height about the centre by two factors; the canvas keeps its size."""
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


def apply(image: np.ndarray, labels: np.ndarray, homography: np.ndarray, size: Size, *, cubic: bool = False) -> Frame:
    """Warp an image (bilinear or `cubic`) and its labels (nearest) to `size`; 0 where it does not show the source."""
    moved, valid = apply_labels(labels, homography, size)
    return apply_image(image, homography, valid, cubic=cubic), moved, valid


def apply_labels(
    labels: np.ndarray, homography: np.ndarray, size: Size, *, keep_edge: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Warp labels; return them and where the output shows the source, with `keep_edge` everywhere."""
    moved = cv2.warpPerspective(labels, _between_centres(homography), size[::-1], flags=cv2.INTER_NEAREST)
    return moved, np.ones(size, bool) if keep_edge else covers(labels.shape, homography, size)


def apply_image(
    image: np.ndarray, homography: np.ndarray, valid: np.ndarray, *, cubic: bool = False, out: np.ndarray | None = None
) -> np.ndarray:
    """Warp an image, into `out` if given: 0 where `valid` (h, w) is False; beyond the source its border is repeated."""
    matrix, where = _between_centres(homography), valid.shape[::-1]
    border = cv2.BORDER_REPLICATE  # the edge of the source keeps its colour
    if cubic:
        out = cv2.warpPerspective(image, matrix, where, dst=out, flags=cv2.INTER_CUBIC, borderMode=border)
    else:
        # OpenCV reads four channels at once: the same pixels in half the time.
        four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        four = cv2.warpPerspective(four, matrix, where, flags=cv2.INTER_LINEAR, borderMode=border)
        out = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=out)
    return black_out(out, valid)


def read_at(image: np.ndarray, labels: np.ndarray, positions: np.ndarray) -> Frame:
    """Sample an image (bicubic) and its labels (nearest) at positions, float32 (h, w, 2), x and y in the image."""
    at = cv2.subtract(positions, (0.5, 0.5, 0, 0))  # in OpenCV pixel centres are at integers
    read = cv2.remap(image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(labels, at, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    valid = inside(positions, labels.shape)
    moved *= valid.view(np.uint8)
    return black_out(read, valid), moved, valid


def black_out(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Set the pixels of an image (h, w, 3) to 0 where `valid` (h, w) is False, in place; return it."""
    if not valid.all():
        cv2.copyTo(np.zeros_like(image), np.logical_not(valid).view(np.uint8), image)
    return image


def covers(source: Size, homography: np.ndarray, target: Size) -> np.ndarray:
    """Return which pixels of the target show an image of size `source` under the homography: bool (h, w)."""
    if _shows_source_alone(source, homography, target):
        return np.ones(target, bool)
    shown, matrix = np.ones(source, np.uint8), _between_centres(homography)
    return cv2.warpPerspective(shown, matrix, (target[1], target[0]), flags=cv2.INTER_NEAREST).view(bool)


def positions_through(homography: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Map positions, float32 (h, w, 2) as x and y, by an affine homography (its last row is 0, 0, 1)."""
    return cv2.transform(positions, homography[:2].astype(np.float32))


def inside(positions: np.ndarray, size: Size) -> np.ndarray:
    """Return which positions (h, w, 2), x and y, are in an image of `size`: bool (h, w)."""
    # The greatest float32 below the sides, because OpenCV's range includes its ends.
    right, bottom = (float(np.nextafter(np.float32(side), np.float32(0))) for side in (size[1], size[0]))
    return cv2.inRange(positions, (0, 0, 0, 0), (right, bottom, 0, 0)).view(np.uint8).astype(bool)


def shrink(image: np.ndarray, target: Size) -> np.ndarray:
    """Reduce an image (area averaging) or labels (nearest) to `target` if far larger, so that a warp does not alias."""
    if image.shape[0] < 1.5 * target[0]:
        return image
    return cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST)


def thin_plate_positions(points: np.ndarray, displacements: np.ndarray, side: int) -> np.ndarray:
    """Return the source positions of the pixels of a square under a thin-plate spline: float32 (side, side, 2), x, y.

    The content at `points` (N, 2), x and y in units of the side, moves by `displacements` (N, 2), and between them by
    the spline of least bending energy.
    """
    # The backward map: a spline that maps the moved points to their origins.
    moved, count = points + displacements, len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(((moved[:, None] - moved[None]) ** 2).sum(-1))
    system[:count, count:] = np.hstack([np.ones((count, 1)), moved])
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.vstack([-displacements, np.zeros((3, 2))])).astype(np.float32)

    centres = ((np.arange(side, dtype=np.float32) + 0.5) / side).astype(np.float32)
    x, y = centres[None, :], centres[:, None]
    square_x = (x - moved[:, :1].astype(np.float32)) ** 2  # (N, side)
    square_y = (y.T - moved[:, 1:].astype(np.float32)) ** 2
    planes = []
    for axis in (0, 1):
        constant, by_x, by_y = weights[count:, axis]
        planes.append((x if axis == 0 else y) + constant + by_x * x + by_y * y)
    part = np.empty((side, side), np.float32)
    for i in range(count):
        bend = _radial(square_y[i][:, None] + square_x[i][None])
        for axis in (0, 1):
            planes[axis] += np.multiply(weights[i, axis], bend, out=part)
    return cv2.merge(planes) * np.float32(side)


def _radial(squares: np.ndarray) -> np.ndarray:
    """Return r^2 log r of squared distances, up to a factor that the weights absorb."""
    logarithm = squares + np.asarray(1e-12, squares.dtype)
    np.log(logarithm, out=logarithm)
    return np.multiply(squares, logarithm, out=logarithm)


def turn_hue(image: np.ndarray, wheel: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Map hues (0..179) and, if given, saturations of uint8 RGB (H, W, 3) by tables, uint8 (256,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    # A table for one channel is far faster than one for all three.
    hue = cv2.extractChannel(hsv, 0)
    cv2.insertChannel(cv2.LUT(hue, wheel, dst=hue), hsv, 0)
    if scale is not None:
        saturation = cv2.extractChannel(hsv, 1)
        cv2.insertChannel(cv2.LUT(saturation, scale, dst=saturation), hsv, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


def greyscale(image: np.ndarray) -> np.ndarray:
    """Return the grey of uint8 RGB (H, W, 3) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _between_centres(homography: np.ndarray) -> np.ndarray:
    """Return the homography between positions as OpenCV counts them: pixel centres at integers."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(half) @ homography @ half


def _shows_source_alone(source: Size, homography: np.ndarray, target: Size) -> bool:
    """Return whether the corners of the target show the source, and so all pixels between them do."""
    right, bottom = target[1] - 0.5, target[0] - 0.5
    corners = np.array([[0.5, right, 0.5, right], [0.5, 0.5, bottom, bottom], [1, 1, 1, 1]])
    _, inverse = cv2.invert(homography)  # zeros where there is none
    x, y, w = inverse @ corners
    if not (w > 0).all():
        return False
    x, y, edge = x / w, y / w, 0.01  # OpenCV rounds to fractions of a pixel
    return bool(x.min() > edge and x.max() < source[1] - edge and y.min() > edge and y.max() < source[0] - edge)


def draw_labels(masks: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the labels of masks (bool (H, W), at most 255): 1, 2, ... in their order, a later one on top."""
    labels = None
    for i, mask in enumerate(masks):
        shown = np.multiply(mask.view(np.uint8), np.uint8(i + 1))
        labels = shown if labels is None else np.maximum(labels, shown, out=labels)  # the latest label is the greatest
    if labels is None:
        return np.zeros(size, np.uint8)
    # COCO's masks are stored column by column.
    return labels if labels.flags.c_contiguous else cv2.transpose(labels.T)


def count_labels(labels: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Count the pixels of each value, int (256,), if given only those where `where`, bool (H, W), is True."""
    mask = None if where is None else where.view(np.uint8)
    return cv2.calcHist([labels], [0], mask, [LABELS], [0, LABELS]).ravel().astype(int)


def chosen_labels(labels: np.ndarray, chosen: np.ndarray, keep: int | None = None) -> np.ndarray:
    """Rename the ids `chosen`, in order, to 1, 2, ...; `keep` stays, everything else becomes background."""
    renamed = np.zeros(LABELS, np.uint8)
    renamed[chosen] = np.arange(1, len(chosen) + 1)
    if keep is not None:
        renamed[keep] = keep
    return cv2.LUT(labels, renamed)
