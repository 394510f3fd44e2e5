"""Textures and moving objects of the synthetic videos.

An object is a *sprite*, a square texture with an outline, that is moved, turned, scaled and bent over a frame. Textures
come from photographs that scikit-image ships. Pixels are integers and coordinates are rounded to 1/32 pixel before
sampling, so that every machine draws the same bytes.

Licences, from the docstrings of `skimage.data`: astronaut, hubble_deep_field (NASA) and rocket (SpaceX) are in the
public domain; brick, camera, chelsea, coffee, grass, gravel and retina are CC0; coins and ihc have no known copyright
restrictions.
"""

import colorsys
import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from hodor.errors import HodorError

PHOTOS: dict[str, tuple[str, ...]] = {
    "train": ("astronaut.png", "coffee.png", "grass.png", "brick.png", "hubble_deep_field.jpg", "ihc.png"),
    "test": ("chelsea.png", "rocket.jpg", "gravel.png", "camera.png", "coins.png", "retina.jpg"),
}
"""World -> files of `skimage/data`; no photograph is in both worlds."""

KINDS = ("blob", "star", "walker", "worm")  # of labelled objects, and their categories

_SUBPIXELS = 32  # of OpenCV's fixed-point sampling


@cache
def load_photo(name: str) -> np.ndarray:
    """Read a photograph of `PHOTOS`: uint8 (H, W, 3) RGB, read-only, halved until no side exceeds 640 pixels."""
    found = importlib.util.find_spec("skimage")
    path = Path(found.submodule_search_locations[0] if found else "scikit-image", "data", name)
    pixels = cv2.imread(str(path)) if path.is_file() else None
    if pixels is None:
        raise HodorError(f"{path}: absent or damaged photograph; install scikit-image again")
    if name == "retina.jpg":  # its corners are black
        margin = len(pixels) // 6
        pixels = pixels[margin:-margin, margin:-margin]
    while max(pixels.shape[:2]) > 640:
        pixels = cv2.pyrDown(pixels)
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    pixels.setflags(write=False)
    return pixels


def paint_texture(rng: np.random.Generator, world: str, hue: float, saturation: float, side: int) -> np.ndarray:
    """Paint a photograph in one hue, sometimes with a pattern in a neighbouring hue; uint8 (side, side, 3) RGB."""
    length = int(rng.integers(72, 150))
    grey = cv2.cvtColor(_crop(rng, world, length, length, side, side), cv2.COLOR_RGB2GRAY)
    grey = cv2.equalizeHist(grey)
    neighbour = hue + rng.uniform(0.08, 0.16) * rng.choice((-1, 1))
    pattern = _draw_pattern(rng, side)[..., None]
    return np.where(pattern, _ramp(neighbour, saturation, 0.15)[grey], _ramp(hue, saturation, 0.45)[grey])


def paint_backdrop(rng: np.random.Generator, world: str, height: int, width: int) -> np.ndarray:
    """Paint a photograph in pale colours, with clouds of two tints; uint8 (height, width, 3) RGB."""
    zoom = rng.uniform(1.0, 1.6)
    photo = _crop(rng, world, int(zoom * height), int(zoom * width), height, width)
    photo = cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.4, 1.4)))
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None].astype(int)
    low, high = np.percentile(grey, (2, 98)).astype(int)
    level = 40 + (grey - low) * 150 // max(high - low, 30)
    saturation = rng.uniform(0.05, 0.35)
    first, second = (_ramp(rng.random(), saturation, 0)[-1].astype(int) for _ in range(2))
    clouds = _smooth_noise(rng, height, width, 4)[..., None].astype(int)
    tint = (first * (255 - clouds) + second * clouds) // 255
    own_colours = (photo - grey) * int(256 * (0.2 + saturation)) // 256
    gain = int(256 * rng.uniform(0.65, 1.1))
    return np.clip((level * tint // 255 + own_colours) * gain // 256, 0, 255).astype(np.uint8)


def _crop(rng: np.random.Generator, world: str, height: int, width: int, to_height: int, to_width: int) -> np.ndarray:
    """Draw a part of a photograph, mirrored half the time, and resize it."""
    photo = load_photo(str(rng.choice(PHOTOS[world])))
    shrink = min(1.0, photo.shape[0] / height, photo.shape[1] / width)
    height, width = int(shrink * height), int(shrink * width)
    top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
    part = photo[top : top + height, left : left + width]
    part = np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)
    return cv2.resize(part, (to_width, to_height), interpolation=cv2.INTER_LINEAR_EXACT)


def _ramp(hue: float, saturation: float, dark: float) -> np.ndarray:
    """Return uint8 (256, 3): colours of one hue, from dark to light."""
    ends = [colorsys.hsv_to_rgb(hue % 1, saturation, value) for value in (dark, 1.0)]
    return np.rint(255 * np.linspace(*np.array(ends), 256)).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Draw uint8 (height, width): interpolated random numbers on a grid of `cells` a side."""
    coarse = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


def _draw_pattern(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw stripes, checks, spots or, half the time, nothing; bool (side, side)."""
    angle, period = rng.uniform(0, math.pi), side * rng.uniform(0.15, 0.3)
    y, x = np.mgrid[:side, :side]
    stripes = (math.cos(angle) * x + math.sin(angle) * y) % period < period / 2
    across = (math.cos(angle) * y - math.sin(angle) * x) % period < period / 2
    patterns = (stripes, stripes ^ across, _smooth_noise(rng, side, side, 9) > 160)
    choice = rng.integers(2 * len(patterns))
    return patterns[choice] if choice < len(patterns) else np.zeros((side, side), bool)


def draw_outline(rng: np.random.Generator, kind: str) -> list[np.ndarray]:
    """Draw an outline of one of `KINDS`, or of a member of a "crowd": the union of polygons (N, 2) between -1 and 1."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack((np.cos(angles), np.sin(angles)), 1)
    if kind == "worm":  # thick at the head, thin at the tail
        return [circle * np.stack((np.full(48, 0.95), rng.uniform(0.2, 0.25) * (1 - 0.3 * circle[:, 0])), 1)]
    if kind == "walker":
        legs = [(x, 0.45, 0.11, 0.45) for x in (-0.5, -0.24, 0.18, 0.44)]
        tail, head, torso = (-0.75, -0.2, 0.2, 0.09), (0.62, -0.4, 0.28, 0.26), (0, 0, 0.66, rng.uniform(0.3, 0.4))
        return [circle * part[2:] + part[:2] for part in (*legs, tail, head, torso)]
    if kind == "star":
        radius = 1 + rng.uniform(0.28, 0.36) * np.cos(rng.integers(4, 7) * angles)
    else:
        radius = 1 + sum(rng.uniform(0.03, 0.14) * np.cos(k * angles + rng.uniform(0, 6.28)) for k in (2, 3, 4))
    return [circle * (0.9 * radius / radius.max())[:, None]]


def fill_outline(outline: list[np.ndarray], side: int) -> np.ndarray:
    """Fill polygons with 255, uint8 (side, side), with a smooth rim."""
    filled = np.zeros((side, side), np.uint8)
    for polygon in outline:
        fixed = np.rint((polygon + 1) * (side - 1) / 2 * 16).astype(np.int32)
        cv2.fillPoly(filled, [fixed], 255, cv2.LINE_AA, shift=4)
    return filled


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate an image bilinearly at float64 positions, rounded to 1/32 pixel; 0 outside the image."""
    x, y = (np.rint(_SUBPIXELS * np.clip(p, -8, 8191)).astype(np.int32) for p in np.broadcast_arrays(x, y))
    whole = np.stack((x // _SUBPIXELS, y // _SUBPIXELS), -1).astype(np.int16)
    part = (y % _SUBPIXELS * _SUBPIXELS + x % _SUBPIXELS).astype(np.uint16)
    return cv2.remap(image, whole, part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Trajectory:
    """A smooth curve over time, in pixels and stored frames, with an oscillation around it; arrays are x, y."""

    start: np.ndarray
    end: np.ndarray
    duration: float  # frames from start to end
    back: bool  # return to the start within the duration
    sway: np.ndarray  # amplitude, and below radians per frame and phase, of the oscillation
    pace: np.ndarray
    phase: np.ndarray

    def at(self, time: float) -> tuple[float, float]:
        """Return (x, y) at a time: `start` at time 0, `end` or `start` again after the duration."""
        share = min(max(time / self.duration, 0.0), 1.0)
        share = 1 - abs(2 * share - 1) if self.back else share
        place = self.start + share * share * (3 - 2 * share) * (self.end - self.start)
        place = place + self.sway * (np.sin(self.pace * time + self.phase) - np.sin(self.phase))
        return float(place[0]), float(place[1])


@dataclass(frozen=True)
class Body:
    """An object of a video."""

    label: int  # its id, 0 for distractors, which are background in the masks
    kind: str  # one of `KINDS`, or "crowd"
    sprite: np.ndarray  # uint8 (S, S, 4), RGB and coverage, at the object's size in the frame
    turn: float  # angle at time 0 in radians
    spin: float  # change of the angle per frame
    grow: float  # fraction of its size by which it grows and shrinks
    pace: float  # radians per frame, and below phase, of growing and of its deformation
    phase: float
    trajectory: Trajectory | None = None  # of its centre

    def draw(self, canvas: np.ndarray, labels: np.ndarray, time: float) -> None:
        """Paint the object over a frame and its label map, uint8 (H, W, 3) and (H, W), in place."""
        x, y = self.trajectory.at(time)
        wave, half = self.pace * time + self.phase, (len(self.sprite) - 1) / 2
        radius = half * (1 + self.grow * (math.sin(wave) - math.sin(self.phase)))
        reach, (height, width) = 1.45 * radius + 2, labels.shape
        top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, height)
        left, right = max(int(x - reach), 0), min(int(x + reach) + 1, width)
        if top >= bottom or left >= right:
            return
        dx, dy = (np.arange(left, right)[None, :] - x) / radius, (np.arange(top, bottom)[:, None] - y) / radius
        cos, sin = math.cos(self.turn + self.spin * time), math.sin(self.turn + self.spin * time)
        u, v = self._unbend(cos * dx + sin * dy, cos * dy - sin * dx, wave)
        patch = sample(self.sprite, half + half * u, half + half * v)
        cover = patch[..., 3:].astype(np.uint16)
        view = canvas[top:bottom, left:right]
        view[:] = (view * (255 - cover) + patch[..., :3] * cover + 127) // 255
        labels[top:bottom, left:right][cover[..., 0] >= 128] = self.label

    def _unbend(self, u: np.ndarray, v: np.ndarray, wave: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of the sprite that the deformation moves to (u, v)."""
        if self.kind == "worm":
            return u, v + 0.25 * np.sin(4.5 * u - wave)
        if self.kind == "walker":  # legs swing, each with a phase of its own
            return u + 0.3 * np.maximum(v - 0.15, 0) * np.sin(7 * u + 1.5 * wave), v + 0.05 * math.sin(wave)
        return u + 0.13 * np.sin(2.5 * v + wave), v + 0.13 * np.sin(2.5 * u - 0.7 * wave)
