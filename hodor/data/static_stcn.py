"""Clips as STCN makes them for training on static images (baselines specification, sections 3.2 and 3.7).

Shared by the clip: scale, flip, change of colours, now and then grey. Per frame: rotation, scale and horizontal shear;
the short side resized to the crop, which slides along the long side; a second change of colours; for one frame in
three a thin-plate spline.

Deviations from the release, both for one resampling (bicubic) instead of up to four: the geometric steps are composed
and applied once, and a soft mask is decided at one half before and not after them. What the release cuts off on the
way (the canvas after the first scaling, the square before the spline) is cut off here too.
"""

from dataclasses import dataclass

import numpy as np

from hodor.data import warps
from hodor.data.jitter import Strength, greyscale, jitter
from hodor.data.static_clips import Camera, Frame, StaticClips, crop_offset, enlarged
from hodor.data.thin_plate import random_points, source_positions

SCALE = (0.8, 1.5)
FRAME_SCALE = (0.9, 1.1)
ROTATION = 20.0
SHEAR = 10.0
JITTER = Strength(0.1, 0.05, 0.05, 0.05)
FRAME_JITTER = Strength(0.1, 0.05, 0.05, 0.0)
GREY = 0.05
THIN_PLATE = 0.33


@dataclass(frozen=True)
class ScaledCamera(Camera):
    """A camera whose canvas has the crop as its short side, and the clip's scale."""

    scale: float


class StcnClips(StaticClips):
    """Clips of frames under a shared and an independent affine warp and thin-plate splines."""

    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> ScaledCamera:
        canvas = enlarged(labels.shape, self.options.crop)
        scale = rng.uniform(*SCALE)
        small, small_labels = warps.shrink(image, labels, enlarged(labels.shape, self.options.crop * scale))
        flipped = rng.random() < 0.5
        if self.options.colour:
            small = jitter(small, JITTER, rng)
            if rng.random() < GREY:
                small = greyscale(small)
        onto = warps.scaling(small_labels.shape, canvas)
        if flipped:
            onto = warps.flip(canvas) @ onto
        return ScaledCamera(small, small_labels, canvas, onto, scale)

    def draw(self, camera: ScaledCamera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        canvas, crop = camera.canvas, self.options.crop
        if centre is None:
            clip = warps.zoom(canvas, camera.scale, camera.scale)
            turn = warps.affine(
                canvas, shift=(0, 0), rotation=rng.uniform(-ROTATION, ROTATION), shear=rng.uniform(-SHEAR, SHEAR)
            )
            frame = turn @ warps.zoom(canvas, *[rng.uniform(*FRAME_SCALE)] * 2)
        else:  # an object that the clip's scale moved out of sight is looked at without it
            clip = frame = np.eye(3)
            centre = camera.on_canvas(centre)
        left, top = crop_offset(canvas, crop, rng, centre)
        frame = warps.move(-left, -top) @ frame
        bent = centre is None and rng.random() < THIN_PLATE
        image, labels, valid = self._read(camera, clip, frame, random_points(rng) if bent else None)
        if self.options.colour:
            image = jitter(image, FRAME_JITTER, rng, valid)
        labels *= valid.view(np.uint8)
        return warps.black_out(image, valid), labels, valid

    def _read(
        self, camera: Camera, clip: np.ndarray, frame: np.ndarray, spline: tuple[np.ndarray, np.ndarray] | None
    ) -> Frame:
        """The frame under the clip's and its own warp and the spline through the points given, if any.

        Shown is what no step cuts off.
        """
        crop, onto = self.options.crop, clip @ camera.onto
        if spline is None:
            image, labels, valid = warps.apply(camera.image, camera.labels, frame @ onto, (crop, crop), cubic=True)
            return image, labels, valid & warps.covers(camera.canvas, frame, (crop, crop))
        square = source_positions(*spline, crop)
        canvas = warps.positions_through(np.linalg.inv(frame), square)
        picture = warps.positions_through(np.linalg.inv(onto), canvas)
        image, labels, valid = warps.read_at(camera.image, camera.labels, picture)
        kept = warps.inside(square, (crop, crop)) & warps.inside(canvas, camera.canvas)
        return image, labels, valid & kept
