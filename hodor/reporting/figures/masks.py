"""Masks over frames: strips with frames across and systems down, and the overlay of one frame."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from hodor.data.images import DAVIS_PALETTE, VOID, read_labels
from hodor.data.video import Video
from hodor.errors import HodorError
from hodor.reporting.figures import STYLE

_PIXELS = 300  # width of one frame in a strip


@rc_context(STYLE)
def mask_strip(
    video: Video,
    systems: Mapping[str, Path],
    scores: Mapping[str, float],
    columns: int = 5,
    *,
    only: int | None = None,
    mark: Mapping[str, str] | None = None,
) -> Figure:
    """Draw masks over frames, with frames across and systems down, the ground truth first.

    Args:
        video: a sequence with masks for all frames.
        systems: label -> folder of the system's <frame>.png of this sequence.
        scores: label -> J&F in points on this sequence (or on the object `only`).
        columns: number of frames, evenly spread from the first to the last.
        only: the object to show. None: all.
        mark: frame -> remark; the frame replaces the nearest of the evenly spread ones.
    """
    mark = mark or {}
    chosen = spread_frames(video, columns, through=tuple(mark))
    rows = {"ground truth": video.label_folder} | dict(systems)
    height = 2.0 * video.height / video.width
    figure = Figure(figsize=(2.0 * len(chosen) + 1.5, (height + 0.06) * len(rows) + 0.25))
    left, top = 1.5 / figure.get_figwidth(), 1 - 0.25 / figure.get_figheight()
    panels = figure.subplots(len(rows), len(chosen), squeeze=False)
    figure.subplots_adjust(left=left, right=0.998, top=top, bottom=0.002, wspace=0.02, hspace=0.03)
    for (label, folder), line in zip(rows.items(), panels, strict=True):
        for frame, axes in zip(chosen, line, strict=True):
            axes.imshow(_painted(video, folder, frame, only), interpolation="none", aspect="auto")
            axes.set_axis_off()
        text = label.replace(", ", ",\n") + (f"\nJ&F {scores[label]:.1f}" if label in scores else "")
        line[0].text(-0.04, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    for frame, axes in zip(chosen, panels[0], strict=True):
        axes.set_title(f"frame {int(frame)}" + (f" ({mark[frame]})" if frame in mark else ""), fontsize=8, pad=3)
    return figure


def mask_rows(video: Video, folders: Sequence[Path], columns: int = 5) -> list[bytes]:
    """Return a row of frames with masks for each folder, as JPEG."""
    found = []
    for folder in folders:
        images = [_painted(video, folder, frame) for frame in spread_frames(video, columns)]
        gap = np.full((images[0].shape[0], 4, 3), 255, np.uint8)
        buffer = io.BytesIO()
        row = np.hstack([part for image in images for part in (image, gap)][:-1])
        Image.fromarray(row).save(buffer, "JPEG", quality=88, subsampling=0)
        found.append(buffer.getvalue())
    return found


def spread_frames(video: Video, columns: int, through: Sequence[str] = ()) -> list[str]:
    """Return `columns` frames, evenly spread from the first to the last; each of `through` replaces the nearest one."""
    columns = min(columns, len(video.frames))
    chosen = [int(i) for i in np.linspace(0, len(video.frames) - 1, columns).round()]
    for frame in through:
        wanted = video.frames.index(frame)
        nearest = min(range(len(chosen)), key=lambda k: (abs(chosen[k] - wanted), k))
        chosen[nearest] = wanted
    return [video.frames[i] for i in sorted(chosen)]


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Draw masks and their outlines in the DAVIS palette over a frame.

    Args:
        frame: uint8 (H, W, 3) RGB.
        labels: uint8 (H, W); nothing is drawn where they are 0 or void (255).
        opacity: opacity of the masks in 0..1; outlines are opaque.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    if frame.shape[:2] != labels.shape:
        raise HodorError(f"a frame of {frame.shape[:2]} and a mask of {labels.shape}; they must be of one size")
    labels = np.where(labels == VOID, 0, labels).astype(np.uint8)
    colours = DAVIS_PALETTE[labels]
    mixed = (frame * (1 - opacity) + colours * opacity).round().astype(np.uint8)
    result = np.where((labels > 0)[..., None], mixed, frame)
    # A pixel is on an outline if its neighbourhood holds another label. Large frames are reduced, so theirs is wider.
    kernel = np.ones((3, 3), np.uint8) if labels.shape[1] <= 2 * _PIXELS else np.ones((5, 5), np.uint8)
    edge = (cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)) & (labels > 0)
    result[edge] = colours[edge]
    return result


def _painted(video: Video, folder: Path, frame: str, only: int | None = None) -> np.ndarray:
    path, size = folder / f"{frame}.png", (video.height, video.width)
    # External masks may lack the first and the last, which are not scored.
    absent = frame in (video.frames[0], video.frames[-1]) and not path.exists()
    labels = np.zeros(size, np.uint8) if absent else read_labels(path, size)
    if only is not None:
        labels[labels != only] = 0
    image = overlay(video.frame(frame), labels)
    if image.shape[1] <= _PIXELS:
        return image
    size = (_PIXELS, round(image.shape[0] * _PIXELS / image.shape[1]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
