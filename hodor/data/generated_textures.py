"""Textures of the generated worlds: photographs that scikit-image's wheel ships, recoloured and patterned.

The photographs are split into two worlds. No photograph, no crop and no seed of one world is ever used in the
other, so that a network tested on `test` has seen none of its textures. Licences, from the docstrings of
`skimage.data` (the README of its data folder names none): astronaut, hubble_deep_field (NASA) and rocket (SpaceX)
are in the public domain; brick, camera, chelsea, coffee, grass, gravel and retina are CC0; coins and ihc have no
known copyright restrictions. The files are read where the wheel installed them; nothing is downloaded.
"""

import importlib.util
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from hodor.config.generated import GeneratedOptions
from hodor.errors import HodorError

World = Literal["train", "test"]

PHOTOS: dict[str, tuple[str, ...]] = {
    "train": ("astronaut.png", "coffee.png", "grass.png", "brick.png", "hubble_deep_field.jpg", "ihc.png"),
    "test": ("chelsea.png", "rocket.jpg", "gravel.png", "camera.png", "coins.png", "retina.jpg"),
}
"""World -> files of `skimage/data`. The sets are disjoint; both hold colour photographs and grey textures."""

TEXTURE_SIDE = 64
"""Side of an object's texture in pixels."""

_LONG_SIDE = 640  # larger photographs are scaled down to this, in pixels


@dataclass(frozen=True)
class Look:
    """All that an object's texture is made from; equal looks give equal pixels.

    Attributes:
        photo: file name in `PHOTOS`.
        crop: (top, left, side) in pixels of the scaled photograph.
        seed: of the procedural pattern; even in the train world, odd in the test world.
        hue, second_hue: base colour and colour of the pattern, 0..1 around the colour wheel.
        saturation: 0..1.
        dark, light: value (0..1) of the photograph's dark and light parts.
        native: keep the photograph's colours (hue turned by `hue`) instead of tinting its luminance.
        pattern: procedural overlay.
    """

    photo: str
    crop: tuple[int, int, int]
    seed: int
    hue: float
    second_hue: float
    saturation: float
    dark: float
    light: float
    native: bool
    pattern: Literal["none", "stripes", "spots", "checks"]


@dataclass(frozen=True)
class Backdrop:
    """All that a background is made from; equal backdrops give equal pixels.

    Attributes:
        photo, seed, saturation: as in `Look`; the seed makes clouds of light and colour over the photograph.
        hue, second_hue: of the clouds.
        crop: (top, left, height, width) in pixels of the scaled photograph.
        gain: factor on the brightness.
        blur: standard deviation in pixels.
    """

    photo: str
    crop: tuple[int, int, int, int]
    seed: int
    hue: float
    second_hue: float
    saturation: float
    gain: float
    blur: float


@cache
def _photo_folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise HodorError("the package scikit-image is absent; install it: generated data takes textures from it")
    return Path(found.submodule_search_locations[0]) / "data"


@cache
def _load_photo(name: str) -> np.ndarray:
    """uint8 (H, W, 3) RGB, long side at most `_LONG_SIDE`, read-only. HodorError where the wheel lacks it."""
    path = _photo_folder() / name
    try:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise HodorError(f"{path}: cannot read this photograph ({error}); install scikit-image again") from error
    if pixels is None:
        raise HodorError(f"{path}: not a whole image; install scikit-image again")
    scale = _LONG_SIDE / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if name == "retina.jpg":  # the round picture's black corners carry no texture
        margin = round(0.16 * len(pixels))
        pixels = pixels[margin:-margin, margin:-margin]
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    pixels.setflags(write=False)
    return pixels


def _hsv_to_rgb(hue, saturation, value) -> np.ndarray:
    """Floats or arrays (H, W) in 0..1 (hue cyclic), one at least an array -> float32 (H, W, 3) RGB in 0..255."""
    shape = np.broadcast_shapes(*(np.shape(channel) for channel in (hue, saturation, value)))
    hsv = np.empty((*shape, 3), np.float32)
    hsv[..., 0] = np.mod(hue, 1.0) * 360.0
    hsv[..., 1] = np.clip(saturation, 0, 1)
    hsv[..., 2] = np.clip(value, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def _smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """float32 (H, W) of bicubic noise with about `cells` bumps a side, roughly in -1..1."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def _pattern(kind: str, rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 (side, side) in 0..1: where the second colour lies."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side * 2 * np.pi
    turn, pace = rng.uniform(0, np.pi), rng.uniform(3.0, 6.5)
    along = np.cos(turn) * x + np.sin(turn) * y + 0.6 * _smooth_noise(rng, (side, side), 4)
    across = np.cos(turn) * y - np.sin(turn) * x
    phase = rng.uniform(0, 2 * np.pi, 2)
    if kind == "stripes":
        wave = np.sin(pace * along + phase[0])
    elif kind == "checks":
        wave = 2 * np.sin(0.7 * pace * along + phase[0]) * np.sin(0.7 * pace * across + phase[1])
    else:
        wave = 2.5 * _smooth_noise(rng, (side, side), int(rng.integers(7, 11))) - 0.4
    return np.clip(0.5 + 2.0 * wave, 0, 1).astype(np.float32)


class TextureBank:
    """Textures of one world; every draw is kept in `drawn`, so that disjointness can be checked.

    Args:
        world: "train" or "test".
        options: give the saturation of objects and backgrounds.
    """

    def __init__(self, world: World, options: GeneratedOptions) -> None:
        self.world = world
        self.options = options
        self.drawn: set[Look | Backdrop] = set()

    @cached_property
    def _parity(self) -> int:
        return ("train", "test").index(self.world)

    def _seed(self, rng: np.random.Generator) -> int:
        # The lowest bit is the world's: seeds of two worlds cannot meet, however they are drawn.
        return int(rng.integers(0, 2**62)) * 2 + self._parity

    def _photo(self, name: str) -> np.ndarray:
        if name not in PHOTOS[self.world]:
            raise ValueError(f"photograph {name} is not of the {self.world} world")
        return _load_photo(name)

    def _crop(self, rng: np.random.Generator, photo: str) -> tuple[int, int, int]:
        height, width = self._photo(photo).shape[:2]
        side = int(rng.integers(72, 150))
        return int(rng.integers(0, height - side)), int(rng.integers(0, width - side)), side

    def draw_look(self, rng: np.random.Generator, hue: float, avoid: str) -> Look:
        """A texture for an object: its colour at `hue`, any photograph but `avoid` (the background's)."""
        photo = str(rng.choice([name for name in PHOTOS[self.world] if name != avoid]))
        native = bool(rng.random() < 0.25)
        return self._keep(
            Look(
                photo=photo,
                crop=self._crop(rng, photo),
                seed=self._seed(rng),
                hue=hue % 1.0,
                second_hue=float(hue + rng.uniform(0.12, 0.5) * rng.choice((-1, 1))) % 1.0,
                saturation=float(rng.uniform(*self.options.object_saturation)),
                dark=float(rng.uniform(0.1, 0.45)),
                light=float(rng.uniform(0.75, 1.0)),
                native=native,
                pattern=str(rng.choice(("none", "none", "stripes", "spots", "checks"))),
            )
        )

    def draw_lookalike(self, rng: np.random.Generator, look: Look) -> Look:
        """A distractor's texture: the same family (photograph, pattern, brightness), another crop and hue."""
        shift = float(rng.uniform(0.12, 0.3) * rng.choice((-1, 1)))
        return self._keep(
            replace(
                look,
                crop=self._crop(rng, look.photo),
                seed=self._seed(rng),
                hue=(look.hue + shift) % 1.0,
                second_hue=(look.second_hue + shift) % 1.0,
            )
        )

    def draw_camouflage(self, rng: np.random.Generator, backdrop: Backdrop) -> Look:
        """An object in the background's own photograph and nearly its colours."""
        return self._keep(
            Look(
                photo=backdrop.photo,
                crop=self._crop(rng, backdrop.photo),
                seed=self._seed(rng),
                hue=(backdrop.hue + float(rng.uniform(-0.08, 0.08))) % 1.0,
                second_hue=backdrop.hue,
                saturation=min(1.0, backdrop.saturation + float(rng.uniform(0.1, 0.3))),
                dark=float(rng.uniform(0.1, 0.3)),
                light=float(rng.uniform(0.7, 0.95)),
                native=False,
                pattern=str(rng.choice(("none", "stripes"))),
            )
        )

    def draw_dull(self, rng: np.random.Generator, avoid: str) -> Look:
        """A pale texture for what stands in front of the objects."""
        look = self.draw_look(rng, float(rng.random()), avoid)
        self.drawn.discard(look)
        return self._keep(replace(look, saturation=0.4 * look.saturation, native=False, pattern="none"))

    def draw_backdrop(self, rng: np.random.Generator, height: int, width: int) -> Backdrop:
        """A background, paler than objects are: a crop of at most (height, width) pixels."""
        photo = str(rng.choice(PHOTOS[self.world]))
        photo_height, photo_width = self._photo(photo).shape[:2]
        height, width = min(height, photo_height), min(width, photo_width)
        top = int(rng.integers(0, photo_height - height + 1))
        left = int(rng.integers(0, photo_width - width + 1))
        return self._keep(
            Backdrop(
                photo=photo,
                crop=(top, left, height, width),
                seed=self._seed(rng),
                hue=float(rng.random()),
                second_hue=float(rng.random()),
                saturation=float(rng.uniform(*self.options.background_saturation)),
                gain=float(rng.uniform(0.6, 1.15)),
                blur=float(rng.uniform(0.3, 1.6)),
            )
        )

    def _keep(self, drawn):
        self.drawn.add(drawn)
        return drawn

    def paint(self, look: Look) -> np.ndarray:
        """uint8 (TEXTURE_SIDE, TEXTURE_SIDE, 3) RGB."""
        rng = np.random.default_rng(look.seed)
        top, left, side = look.crop
        crop = self._photo(look.photo)[top : top + side, left : left + side]
        crop = cv2.resize(crop, (TEXTURE_SIDE, TEXTURE_SIDE), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        # Flat crops (sky, shadow) get detail from smooth noise, so that every object has a texture.
        detail = (grey - grey.mean()) / max(float(grey.std()), 10.0)
        detail = 0.5 + 0.22 * detail + 0.12 * _smooth_noise(rng, grey.shape, 6)
        detail = detail.astype(np.float32)
        value = look.dark + (look.light - look.dark) * np.clip(detail, 0, 1)
        hue: np.ndarray | float = look.hue + 0.06 * (detail - 0.5)
        saturation: np.ndarray | float = look.saturation * (1.1 - 0.4 * np.clip(detail, 0, 1))
        if look.native:
            hsv = cv2.cvtColor(crop.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
            # The photograph's hues around their mean, pulled together and turned to the wanted hue.
            angle = np.deg2rad(hsv[..., 0])
            mean = np.arctan2(np.mean(np.sin(angle) * hsv[..., 1]), np.mean(np.cos(angle) * hsv[..., 1]))
            spread = np.angle(np.exp(1j * (angle - mean))).astype(np.float32) / (2 * np.pi)
            hue = look.hue + 0.5 * spread
            saturation = np.clip(0.45 + hsv[..., 1], 0, 1) * look.saturation
        colour = _hsv_to_rgb(hue, saturation, value)
        if look.pattern == "none":
            return np.clip(colour, 0, 255).astype(np.uint8)
        mix = _pattern(look.pattern, rng, TEXTURE_SIDE)[..., None]
        second = _hsv_to_rgb(look.second_hue, look.saturation, 0.25 + 0.75 * value)
        return np.clip(colour + np.float32(0.85) * mix * (second - colour), 0, 255).astype(np.uint8)

    def paint_backdrop(self, backdrop: Backdrop) -> np.ndarray:
        """uint8 (H, W, 3) RGB of the crop's size."""
        rng = np.random.default_rng(backdrop.seed)
        top, left, height, width = backdrop.crop
        photo = self._photo(backdrop.photo)[top : top + height, left : left + width]
        photo = cv2.GaussianBlur(photo, (0, 0), backdrop.blur).astype(np.float32)
        grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        # Very dark or flat photographs (night sky, coins on black) are stretched to a middle range.
        low, high = np.percentile(grey[::4, ::4], (2, 98))
        level = 40 + (grey - low) * np.float32(160 / max(float(high - low), 30.0))
        hues = np.array([[backdrop.hue, backdrop.second_hue]])
        first, second = _hsv_to_rgb(hues, backdrop.saturation, 1.0)[0] / np.float32(255)
        mix = np.clip(0.5 + 0.9 * _smooth_noise(rng, grey.shape, 4), 0, 1)[..., None]
        tint = first + mix.astype(np.float32) * (second - first)
        own = (photo - grey[..., None]) * np.float32(0.3 + backdrop.saturation)
        light = backdrop.gain * (1 + 0.12 * _smooth_noise(rng, grey.shape, 5))
        pixels = (level[..., None] * tint + own) * light[..., None].astype(np.float32)
        return np.clip(pixels, 0, 255).astype(np.uint8)
