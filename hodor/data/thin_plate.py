"""Thin-plate-spline warps (STCN's static clips; baselines specification, sections 3.2 and 3.7)."""

import cv2
import numpy as np

POINTS = 12
SIGMA = 0.02


def random_points(rng: np.random.Generator, sigma: float = SIGMA) -> tuple[np.ndarray, np.ndarray]:
    """Control points (12, 2) as x, y in the unit square, uniform, and their displacements (12, 2), normal."""
    return rng.random((POINTS, 2)), rng.normal(0, 1, (POINTS, 2)) * sigma


def source_positions(points: np.ndarray, displacements: np.ndarray, side: int) -> np.ndarray:
    """Where each pixel of a square image warped by a thin-plate spline comes from.

    The content at `points` moves to `points + displacements`; between them the spline of least bending energy runs.

    Args:
        points, displacements: (N, 2) as x, y in units of the side.
        side: of the image, in pixels.

    Returns:
        float32 (side, side, 2): x, y of the source of each output pixel's centre (pixel 0 covers [0, 1)).
    """
    # The backward map: a spline over the moved points that leads back to where they were.
    moved = points + displacements
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(((moved[:, None] - moved[None]) ** 2).sum(-1))
    system[:count, count:] = np.hstack([np.ones((count, 1)), moved])
    system[count:, :count] = system[:count, count:].T
    wanted = np.zeros((count + 3, 2))
    wanted[:count] = -displacements
    weights = np.linalg.solve(system, wanted).astype(np.float32)

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
        bend = _kernel(square_y[i][:, None] + square_x[i][None])
        for axis in (0, 1):
            planes[axis] += np.multiply(weights[i, axis], bend, out=part)
    return cv2.merge(planes) * np.float32(side)


def _kernel(squares: np.ndarray) -> np.ndarray:
    """r^2 log r of squared distances, up to a factor that the weights take up."""
    logarithm = squares + np.asarray(1e-12, squares.dtype)
    np.log(logarithm, out=logarithm)
    return np.multiply(squares, logarithm, out=logarithm)
