"""Short videos: frames, masks, and their files."""

from pathlib import Path

import numpy as np
from PIL import Image

from hodor.data.images import write_labels
from hodor.data.video import Video

SIZE = (64, 96)


def frame(t: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return frame `t`, uint8 (H, W, 3), of coloured blocks that move two pixels per frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), dtype=np.uint8)
    blocks = coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return np.ascontiguousarray(np.roll(blocks, 2 * t, axis=1))


def frames(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [frame(t, size) for t in range(count)]


def box(top: int, left: int, side: int = 24, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the mask, bool (H, W), of a square."""
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def boxes(*ids: int, size: tuple[int, int] = SIZE) -> dict[int, np.ndarray]:
    """Return the masks of squares in two rows."""
    columns = max(1, -(-len(ids) // 2))
    side, step = min(24, size[1] // columns - 2), size[1] // columns
    return {id: box(i % 2 * (size[0] // 2), i // 2 * step, side, size) for i, id in enumerate(ids)}


def save_video(folder: Path, frames: int, first: dict[int, int], size: tuple[int, int] = SIZE) -> Video:
    """Write the files of a video whose objects (id -> first frame) are `boxes`; the mask of a frame shows all so far."""
    folder.mkdir(exist_ok=True)
    names, masks = tuple(f"{t:05d}" for t in range(frames)), boxes(*first, size=size)
    for t, name in enumerate(names):
        Image.fromarray(frame(t, size)).save(folder / f"{name}.jpg")
        if t in first.values():
            shown = [np.where(mask, id, 0) for id, mask in masks.items() if first[id] <= t]
            write_labels(folder / f"{name}.png", sum(shown).astype(np.uint8))
    labelled = tuple(names[t] for t in sorted(set(first.values())))
    return Video("v", names, folder, folder, *size, labelled, {id: names[t] for id, t in first.items()})
