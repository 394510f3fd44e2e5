"""Non-rigid textured bodies of the generated scenes: contours and limbs that move, and how they are painted.

A body is one or several *parts*; a part is star-shaped: its contour is a radius over the angle, a sum of
harmonics whose amplitudes swing with time. The texture is fastened to the part in polar coordinates, so it
stretches with it. Lengths are pixels, angles radians, times stored frames.
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from hodor.data.generated_ways import Way

ANGLES = 512  # entries of a contour's radius table
_ORDERS = 8  # harmonics of a contour are below this order
_WAVES = np.arange(_ORDERS)[:, None] * np.arange(ANGLES) * (2 * np.pi / ANGLES)
_COS, _SIN = np.cos(_WAVES).astype(np.float32), np.sin(_WAVES).astype(np.float32)

KINDS = ("blob", "star", "walker", "worm")
"""Kinds of bodies; a labelled object's category is its kind."""

UNSEEN_KIND = "star"
"""No labelled object of YouTube-VOS train is of this kind: a category that training on it never sees."""


@dataclass(frozen=True)
class Part:
    """One star-shaped piece of a body, in the body's frame (unit: the body's size).

    Attributes:
        offset: (2,) centre.
        swing: (2,) amplitude of the centre's oscillation.
        axes: (2,) half axes.
        turn, turn_swing: angle, and amplitude of its oscillation (the part turns around `pivot`).
        pivot: (2,) point in the part's own frame (unit: the half axes) that the angle turns about.
        orders, amplitudes, phases, paces: (n,) harmonics of the contour, phase and pace (per frame) of their swing.
        phase, pace: of `swing` and `turn_swing`.
        window: (u, v, zoom) in 0..1: the texture's part that this part wears.
    """

    offset: np.ndarray
    axes: np.ndarray
    orders: np.ndarray
    amplitudes: np.ndarray
    phases: np.ndarray
    paces: np.ndarray
    swing: np.ndarray = field(default_factory=lambda: np.zeros(2))
    turn: float = 0.0
    turn_swing: float = 0.0
    pivot: np.ndarray = field(default_factory=lambda: np.zeros(2))
    phase: float = 0.0
    pace: float = 0.0
    window: tuple[float, float, float] = (0.5, 0.5, 0.45)

    def radius(self, time: float) -> np.ndarray:
        """float32 (ANGLES,): the contour's radius at each angle, in half axes (about 1)."""
        strength = self.amplitudes * (0.65 + 0.35 * np.sin(self.phases[::-1] + self.paces * time))
        drift = self.phases + 0.4 * self.paces * time
        # cos(k theta + drift) by the addition theorem over tabulated waves; BLAS sums could depend on threads.
        radius = np.ones(ANGLES, np.float32)
        for order, even, odd in zip(self.orders, strength * np.cos(drift), strength * np.sin(drift), strict=True):
            radius += np.float32(even) * _COS[order] - np.float32(odd) * _SIN[order]
        return np.maximum(radius, np.float32(0.3))


def _harmonics(rng: np.random.Generator, total: float, orders: tuple[int, ...] = (2, 3, 4, 5)) -> dict:
    """Random harmonics whose amplitudes add up to `total`, lower orders stronger; a swing takes 12-30 frames."""
    weights = rng.uniform(0.3, 1.0, len(orders)) / np.sqrt(np.arange(1, len(orders) + 1))
    return {
        "orders": np.array(orders),
        "amplitudes": total * weights / weights.sum(),
        "phases": rng.uniform(0, 2 * np.pi, len(orders)),
        "paces": rng.uniform(0.2, 0.5, len(orders)) * rng.choice((-1, 1), len(orders)),
    }


def _window(rng: np.random.Generator, zoom: float) -> tuple[float, float, float]:
    return float(rng.uniform(zoom, 1 - zoom)), float(rng.uniform(zoom, 1 - zoom)), zoom


def draw_parts(rng: np.random.Generator, kind: str) -> list[Part]:
    """The parts of a new body, back to front. `kind` is one of `KINDS`, or "crowd" or "pole"."""
    if kind == "pole":
        return [Part(offset=np.zeros(2), axes=np.array((0.3, 5.0)), **_harmonics(rng, 0.1, (2, 4)))]
    if kind in ("blob", "crowd"):
        stretch = float(rng.uniform(0.75, 1.3))
        return [
            Part(
                offset=np.zeros(2),
                axes=np.array((stretch, 1 / stretch)),
                **_harmonics(rng, rng.uniform(0.25, 0.6)),
            )
        ]
    if kind == "star":
        lobes = int(rng.integers(3, 7))
        waves = _harmonics(rng, rng.uniform(0.35, 0.5), (lobes, 2))
        waves["paces"] *= 0.6
        return [Part(offset=np.zeros(2), axes=np.ones(2), **waves)]
    if kind == "worm":
        count, phase, pace = int(rng.integers(4, 7)), rng.uniform(0, 6.28), rng.uniform(0.35, 0.7)
        parts = []
        for index in range(count):
            along = (index - (count - 1) / 2) * 0.62
            size = 0.62 - 0.07 * index
            parts.append(
                Part(
                    offset=np.array((-along, 0.0)),
                    swing=np.array((0.0, 0.38)),
                    axes=np.array((size, size * 0.92)),
                    phase=phase - 0.9 * index,
                    pace=pace,
                    window=_window(rng, 0.3),
                    **_harmonics(rng, 0.12, (2, 3)),
                )
            )
        return parts[::-1]
    return _walker(rng)


def _walker(rng: np.random.Generator) -> list[Part]:
    """A torso with a head, swinging legs and sometimes a tail."""
    phase, pace = float(rng.uniform(0, 6.28)), float(rng.uniform(0.5, 0.9))
    length = float(rng.uniform(0.85, 1.15))

    def limb(x: float, shift: float, reach: float) -> Part:
        return Part(
            offset=np.array((x, 0.35)),
            axes=np.array((0.17, reach)),
            turn_swing=0.55,
            pivot=np.array((0.0, -0.9)),
            phase=phase + shift,
            pace=pace,
            window=_window(rng, 0.22),
            **_harmonics(rng, 0.1, (2, 3)),
        )

    reach = float(rng.uniform(0.45, 0.62))
    legs = [limb(side * length * 0.6, shift, reach) for side, shift in ((-1, 0), (-0.7, 3.1), (0.7, 3.1), (1, 0))]
    torso = Part(offset=np.zeros(2), axes=np.array((length, 0.5)), window=_window(rng, 0.42), **_harmonics(rng, 0.2))
    head = Part(
        offset=np.array((length * 1.05, -0.42)),
        swing=np.array((0.03, 0.1)),
        axes=np.array((0.42, 0.36)),
        phase=phase,
        pace=pace,
        window=_window(rng, 0.25),
        **_harmonics(rng, 0.25),
    )
    parts = [*legs[:2], torso, *legs[2:], head]
    if rng.random() < 0.5:
        tail = Part(
            offset=np.array((-length * 0.95, -0.2)),
            axes=np.array((0.5, 0.13)),
            turn=0.6,
            turn_swing=0.5,
            pivot=np.array((0.9, 0.0)),
            phase=phase,
            pace=0.7 * pace,
            window=_window(rng, 0.22),
            **_harmonics(rng, 0.1, (2, 3)),
        )
        parts.insert(0, tail)
    return parts


@dataclass
class Body:
    """An object in a scene: labelled (an id from 1), or an unlabelled distractor or occluder (label 0).

    Attributes:
        size: pixels of one unit of the body's frame.
        texture: uint8 (S, S, 3) RGB.
        way: of the body's centre, in pixels.
        turn, spin, sway: angle at time 0, its drift per frame and the amplitude of its oscillation.
        grow, grow_pace, grow_phase: amplitude (of the size's logarithm), pace and phase of the scale change.
        flip: mirrored left to right.
        shade: darkening towards the contour, 0..1. light: (2,) direction of the light over the body.
    """

    label: int
    kind: str
    parts: list[Part]
    size: float
    texture: np.ndarray
    way: Way
    turn: float = 0.0
    spin: float = 0.0
    sway: float = 0.0
    grow: float = 0.0
    grow_pace: float = 0.0
    grow_phase: float = 0.0
    flip: bool = False
    shade: float = 0.25
    light: tuple[float, float] = (0.0, -0.1)

    def scale_at(self, time: float) -> float:
        """Pixels of one unit at a time; `size` at time 0."""
        wave = math.sin(self.grow_phase + self.grow_pace * time) - math.sin(self.grow_phase)
        return self.size * math.exp(self.grow * wave)

    def draw(self, canvas: np.ndarray | None, labels: np.ndarray, time: float) -> None:
        """Paints the body over `canvas`, float32 (H, W, 3) or None, and `labels`, uint8 (H, W), in place."""
        centre = self.way.at(time)
        scale = self.scale_at(time)
        angle = self.turn + self.spin * time + self.sway * math.sin(0.35 * time + self.grow_phase)
        cos, sin, mirror = math.cos(angle), math.sin(angle), -1.0 if self.flip else 1.0
        axes = (
            scale * mirror * cos,
            -scale * sin,
            scale * mirror * sin,
            scale * cos,
        )  # body -> image, row by row
        for part in self.parts:
            self._draw_part(part, canvas, labels, time, centre, axes)

    def _draw_part(self, part: Part, canvas, labels, time: float, centre: np.ndarray, axes: tuple) -> None:
        # Plain floats for the small matrices: with numpy, calls would cost more than the pixels.
        a, b, c, d = axes
        swing = math.sin(part.phase + part.pace * time)
        angle = part.turn + part.turn_swing * swing
        cos, sin = math.cos(angle), math.sin(angle)
        half_x, half_y = float(part.axes[0]), float(part.axes[1])
        hinge_x, hinge_y = part.pivot[0] * half_x, part.pivot[1] * half_y
        x = part.offset[0] + part.swing[0] * swing + hinge_x - (cos * hinge_x - sin * hinge_y)
        y = part.offset[1] + part.swing[1] * swing + hinge_y - (sin * hinge_x + cos * hinge_y)
        place_x, place_y = float(centre[0] + a * x + b * y), float(centre[1] + c * x + d * y)
        radius = part.radius(time)

        reach = math.hypot(a, c) * max(half_x, half_y) * float(radius.max()) + 1.5
        height, width = labels.shape
        left, right = max(int(place_x - reach), 0), min(int(place_x + reach) + 2, width)
        top, bottom = max(int(place_y - reach), 0), min(int(place_y + reach) + 2, height)
        if left >= right or top >= bottom:
            return
        dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(place_x)
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(place_y)
        # Part -> image is [[p, q], [r, s]]; its inverse takes pixels to half axes.
        p, q = (a * cos + b * sin) * half_x, (b * cos - a * sin) * half_y
        r, s = (c * cos + d * sin) * half_x, (d * cos - c * sin) * half_y
        inverse = [np.float32(value / (p * s - q * r)) for value in (s, -q, -r, p)]
        u, v = inverse[0] * dx + inverse[1] * dy, inverse[2] * dx + inverse[3] * dy
        length, theta = cv2.cartToPolar(u, v)
        edge = radius.take((theta * np.float32(ANGLES / (2 * np.pi))).astype(np.int32), mode="wrap")
        ratio = np.maximum(length / edge, np.float32(1e-3))
        # Distance to the contour along the ray, in pixels: the rim's coverage, smooth over one pixel.
        alpha = np.sqrt(dx * dx + dy * dy) * (1 / ratio - 1) + np.float32(0.5)
        labels[top:bottom, left:right][alpha >= 0.5] = self.label
        if canvas is None:
            return

        alpha = np.minimum(np.maximum(alpha, 0), 1)
        u, v = u / edge, v / edge
        last = np.float32(self.texture.shape[0] - 1)
        x0, y0, zoom = (np.float32(value) for value in part.window)
        colour = cv2.remap(
            self.texture,
            (u * zoom + x0) * last,
            (v * zoom + y0) * last,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        light = (
            1 - np.float32(self.shade) * ratio * ratio + np.float32(self.light[0]) * u + np.float32(self.light[1]) * v
        )
        view = canvas[top:bottom, left:right]
        view += alpha[..., None] * (colour * light[..., None] - view)
