"""Clips as STM and KMN make them for training on static images (baselines specification, sections 1.2, 1.7 and 2.7).

Shared by the clip: the scale, short side uniform between the crop and the image's own; a flip in half of the clips;
with `colour` one light change of colours (published STM has none). Per frame: zoom of width and height,
rotation, shear, shift and place of the crop. One resampling: bilinear for the image, nearest for the labels.
"""

import numpy as np

from hodor.data import augment, warps
from hodor.data.jitter import Strength, jitter
from hodor.data.static_clips import Camera, Frame, StaticClips, crop_offset, enlarged

ZOOM = (0.9, 1.1)
ROTATION = 20.0
SHEAR = 10.0
SHIFT = 0.1
JITTER = Strength(0.1, 0.05, 0.05, 0.05)


class AffineClips(StaticClips):
    """Clips of frames under independent affine warps."""

    def camera(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Camera:
        crop = self.options.crop
        canvas = enlarged(labels.shape, rng.uniform(crop, max(crop, min(labels.shape))))
        small, small_labels = warps.shrink(image, labels, canvas)
        if self.options.colour:
            small = jitter(small, JITTER, rng)
        onto = warps.scaling(small_labels.shape, canvas)
        if rng.random() < 0.5:
            onto = warps.flip(canvas) @ onto
        return Camera(small, small_labels, canvas, onto)

    def draw(self, camera: Camera, rng: np.random.Generator, centre: tuple[float, float] | None) -> Frame:
        crop, canvas = self.options.crop, camera.canvas
        if centre is None:
            warp = augment.random_affine(canvas, rng, shift=SHIFT, rotation=ROTATION, shear=SHEAR)
            warp = warp @ warps.zoom(canvas, *rng.uniform(*ZOOM, 2))
        else:
            warp = np.eye(3)
            centre = camera.on_canvas(centre)
        left, top = crop_offset(canvas, crop, rng, centre)
        homography = warps.move(-left, -top) @ warp @ camera.onto
        return warps.apply(camera.image, camera.labels, homography, (crop, crop))
