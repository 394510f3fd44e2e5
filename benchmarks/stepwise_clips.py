"""Clips made the straightforward way, for comparison: one warp after the other, each a resampling of a float32 image.

Inside `stepwise()` the sources of `hodor.data` draw the same random numbers and give the same clips, up to what is lost
by resampling several times. The homographies that they compose remember their factors (`Steps`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import cv2
import numpy as np
import torch

from hodor.data import augmentations, clips_static, dataset, transforms
from hodor.data.augmentations import Strength
from hodor.data.clip import Clip
from hodor.data.transforms import thin_plate_positions

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Steps(np.ndarray):
    """A homography (3, 3) with the warps that it was composed of, the first one first, and the canvas after each.

    A canvas is height and width in pixels; None where it stays.
    """

    parts: tuple[tuple[np.ndarray, tuple[int, int] | None], ...] = ()

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        return _composed(self, other)

    def __rmatmul__(self, other: np.ndarray) -> np.ndarray:
        return _composed(other, self)


def _composed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    product = np.asarray(left) @ np.asarray(right)
    if product.shape != (3, 3):
        return product
    return _steps(product, _parts(right) + _parts(left))


def _steps(matrix: np.ndarray, parts: tuple) -> Steps:
    out = np.asarray(matrix, float).view(Steps)
    out.parts = parts
    return out


def _parts(matrix: np.ndarray) -> tuple:
    if isinstance(matrix, Steps):
        return matrix.parts
    return () if np.array_equal(matrix, np.eye(3)) else ((matrix, None),)


@contextmanager
def stepwise() -> Iterator[None]:
    """Within it clips are made step by step."""
    with ExitStack() as stack:
        for name in ("flip", "crop", "zoom", "move", "affine", "perspective"):
            stack.enter_context(patch.object(transforms, name, _recorded(getattr(transforms, name))))
        scaling = transforms.scaling

        def recorded_scaling(source: tuple[int, int], target: tuple[int, int]) -> Steps:
            matrix = scaling(source, target)
            return _steps(matrix, () if tuple(source) == tuple(target) else ((matrix, tuple(target)),))

        for owner, name, mine in (
            (transforms, "scaling", recorded_scaling),
            (transforms, "apply_labels", _apply_labels),
            (transforms, "apply_image", _apply_image),
            (clips_static.StcnClips, "read", _read_stcn),
            (augmentations, "colour", _colour),
            (clips_static, "jitter", _jitter),
            (dataset, "collate", _collate),
        ):
            stack.enter_context(patch.object(owner, name, mine))
        yield


def _recorded(make):
    def recorded(*arguments, **options) -> Steps:
        matrix = make(*arguments, **options)
        return _steps(matrix, ((matrix, None),))

    return recorded


def _through(picture: np.ndarray, homography: np.ndarray, size: tuple[int, int], flags: int, border: int) -> np.ndarray:
    """A float32 picture after one warp and the next."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    parts = _parts(homography)
    for i, (matrix, canvas) in enumerate(parts):
        height, width = size if i + 1 == len(parts) else canvas or picture.shape[:2]
        matrix = np.linalg.inv(half) @ np.asarray(matrix) @ half
        picture = cv2.warpPerspective(picture, matrix, (width, height), flags=flags, borderMode=border)
    return picture


def _apply_labels(labels, homography, size, *, keep_edge=False):
    nearest = cv2.INTER_NEAREST, cv2.BORDER_CONSTANT
    moved = _through(labels.astype(np.float32), homography, size, *nearest).astype(np.uint8)
    valid = _through(np.ones(labels.shape, np.float32), homography, size, *nearest) > 0.5
    if keep_edge:
        valid = np.ones(size, bool)
    return moved, valid


def _apply_image(image, homography, valid, *, cubic=False, out=None):
    flags = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    warped = _through(image.astype(np.float32), homography, valid.shape, flags, cv2.BORDER_REPLICATE)
    warped = _to_bytes(warped)
    warped[~valid] = 0
    if out is not None:
        out[:] = warped
    return warped


def _read_stcn(self, camera, clip, frame, spline):
    size = (self.options.crop, self.options.crop)
    homography = frame @ clip @ camera.onto
    image, labels, valid = transforms.apply(camera.image, camera.labels, homography, size, cubic=True)
    if spline is None:
        return image, labels, valid
    at = thin_plate_positions(*spline, size[0]) - 0.5
    image = cv2.remap(image.astype(np.float32), at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    labels = cv2.remap(labels.astype(np.float32), at, None, cv2.INTER_NEAREST).astype(np.uint8)
    valid = cv2.remap(valid.astype(np.float32), at, None, cv2.INTER_NEAREST) > 0.5
    image = _to_bytes(image)
    image[~valid] = 0
    return image, labels, valid


def _colour(image: np.ndarray, rng: np.random.Generator, *, brightness: float) -> np.ndarray:
    hue, saturation = rng.uniform(-12, 12, 2)
    contrast, light = rng.uniform(0.95, 1.05), rng.uniform(-brightness, brightness)
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + hue * 360 / 255) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] + saturation / 255, 0, 1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    return _to_bytes((rgb - 127.5) * contrast + 127.5 + light)


def _jitter(image: np.ndarray, strength: Strength, rng: np.random.Generator, valid: np.ndarray | None = None):
    factors = rng.uniform(-1, 1, 4) * strength
    rgb = image.astype(np.float32)
    for kind in rng.permutation(4):
        change = np.float32(factors[kind])
        if change == 0:
            continue
        if kind == 0:
            rgb = rgb * (1 + change)
        elif kind == 1:
            grey = rgb @ _GREY
            rgb = (1 + change) * rgb - change * (grey if valid is None else grey[valid]).mean()
        elif kind == 2:
            rgb = (1 + change) * rgb - change * (rgb @ _GREY)[..., None]
        else:
            hsv = cv2.cvtColor(rgb / 255, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0] + change * 360) % 360
            rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
        rgb = np.clip(rgb, 0, 255)
    return _to_bytes(rgb)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _collate(samples: Sequence[dataset.Sample], objects: int, multiple: int, sizes=None) -> Clip:
    sizes = sizes or [sample.labels.shape[1:] for sample in samples]
    sides = [max(size[axis] for size in sizes) for axis in (0, 1)]
    height, width = (side + -side % multiple for side in sides)
    stacked = []
    for name in ("frames", "labels", "valid"):
        padded = []
        for sample in samples:
            values = getattr(sample, name)
            room = [(0, 0), (0, height - values.shape[1]), (0, width - values.shape[2]), (0, 0)]
            padded.append(np.pad(values, room[: values.ndim]))
        stacked.append(torch.from_numpy(np.stack(padded)))
    frames = stacked[0].permute(0, 1, 4, 2, 3).contiguous()
    return Clip(frames, stacked[1], stacked[2], objects, samples[0].annotated)
