"""Ways of the bodies of a generated scene: smooth curves through points in time. Pixels, stored frames."""

from dataclasses import dataclass

import numpy as np

_SEGMENT = 6  # stored frames between two points, about


@dataclass(frozen=True)
class Way:
    """A smooth way through points in time (Catmull-Rom spline).

    Attributes:
        points: (M, 2) x, y in pixels, one every `segment` stored frames.
    """

    points: np.ndarray
    segment: float

    def at(self, time: float) -> np.ndarray:
        """(2,) x, y; before its first and after its last point the way stands still."""
        last = len(self.points) - 1
        place = min(max(time / self.segment, 0.0), float(last))
        index = min(int(place), last - 1)
        p = [self.points[min(max(index + k, 0), last)] for k in (-1, 0, 1, 2)]
        s = place - index
        return 0.5 * (
            2 * p[1]
            + (p[2] - p[0]) * s
            + (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3]) * s**2
            + (3 * p[1] - p[0] - 3 * p[2] + p[3]) * s**3
        )

    def within(self, frames: int, largest: float) -> "Way":
        """The same way, shrunk towards its start until no step between frames exceeds `largest` pixels."""
        places = np.array([self.at(time) for time in range(frames)])
        step = float(np.linalg.norm(np.diff(places, axis=0), axis=1).max(initial=0.0))
        if step <= largest:
            return self
        start = self.points[0]
        return Way(start + (self.points - start) * (largest / step), self.segment)


def way_points(frames: int) -> tuple[int, float]:
    """Number of points for a video of `frames` stored frames, and the frames between two of them."""
    segments = max(2, round((frames - 1) / _SEGMENT))
    return segments + 1, (frames - 1) / segments


def start(
    rng: np.random.Generator,
    frame: np.ndarray,
    radius: float,
    taken: list[np.ndarray],
    near: np.ndarray | None,
) -> np.ndarray:
    """A place (x, y) inside `frame` (width, height): of a few, the one farthest from the places taken.

    Where `near` is given (the middle of a crowd), a place around it instead.
    """
    if near is not None:
        return near + rng.normal(0, 0.09, 2) * frame
    margin = np.minimum(0.9 * radius, 0.45 * frame)
    choices = margin + rng.random((4, 2)) * (frame - 2 * margin)
    if not taken:
        return choices[0]
    gaps = np.linalg.norm(choices[:, None] - np.array(taken)[None], axis=2).min(1)
    return choices[int(gaps.argmax())]


def wander(rng: np.random.Generator, begin: np.ndarray, frame: np.ndarray, count: int, stride: float) -> np.ndarray:
    """(count, 2) points of a walk that keeps its heading and turns back at the frame's border."""
    heading, points = rng.uniform(0, 2 * np.pi), [begin]
    for _ in range(count - 1):
        heading += rng.normal(0, 0.5)
        step = stride * np.array((np.cos(heading), np.sin(heading)))
        for axis in (0, 1):
            if not 0.08 * frame[axis] <= points[-1][axis] + step[axis] <= 0.92 * frame[axis]:
                step[axis] = abs(step[axis]) * (1 if points[-1][axis] < frame[axis] / 2 else -1)
        heading = np.arctan2(step[1], step[0])
        points.append(points[-1] + step)
    return np.array(points)


def cross(rng: np.random.Generator, begin: np.ndarray, end: np.ndarray, frame: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) points of a way to another body's place; bodies that swap their places meet half-way."""
    points = begin + np.linspace(0, 1, count)[:, None] * (end - begin)
    points[1:] += rng.normal(0, 0.03, (count - 1, 2)) * frame
    return points


def to_border(place: np.ndarray, radius: float, frame: np.ndarray) -> np.ndarray:
    """The place moved straight to the nearest side of the frame, so that a disc of `radius` there just fits in."""
    axis = int(np.argmin(np.minimum(place, frame - place)))
    moved = place.copy()
    moved[axis] = radius if place[axis] < frame[axis] / 2 else frame[axis] - radius
    return moved


def leave(rng: np.random.Generator, begin: np.ndarray, reach: float, frame: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) points of a way out over the nearest side and back; out of sight (`reach`) in the middle."""
    axis = int(np.argmin(np.minimum(begin, frame - begin)))
    inward = 1 if begin[axis] < frame[axis] / 2 else -1
    border = 0.0 if inward > 0 else frame[axis]
    points = np.repeat(begin[None], count, 0) + np.cumsum(rng.normal(0, 0.04, (count, 2)) * frame, 0)
    points[0] = begin
    depth = 1 - np.abs(np.linspace(-1, 1, count))  # 0 at both ends, 1 in the middle
    points[:, axis] = begin[axis] + depth * (border - inward * (reach + 3) - begin[axis])
    points[-1, axis] = border + inward * rng.uniform(0.6, 1.5) * reach
    return points


def enter(
    rng: np.random.Generator, end: np.ndarray, reach: float, frame: np.ndarray, count: int, delay: float
) -> np.ndarray:
    """(count, 2) points of a way to `end` that begins out of sight, up to `delay` pixels off the frame."""
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    outside = end.copy()
    gap = reach + 2 + rng.uniform(0, delay)
    outside[axis] = frame[axis] + gap if far else -gap
    return cross(rng, outside, end, frame, count)
