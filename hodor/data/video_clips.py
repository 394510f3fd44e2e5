"""Clips of videos in which one frame is annotated (specification section 5.4)."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import augment, label_maps, warps
from hodor.data.batches import Plan, Sample, in_rounds, plan_batches
from hodor.data.image_clips import ATTEMPTS, clip_image, clip_labels, clip_size, scaled_area, visible_at_stride_8
from hodor.data.images import VOID
from hodor.data.label_maps import chosen_labels
from hodor.data.packed_videos import PackedVideo
from hodor.data.packs import training_videos
from hodor.data.video import Video
from hodor.errors import HodorError

BRIGHTNESS = 20


@dataclass(frozen=True)
class Candidate:
    """A video with its one annotated frame (position in `video.frames`) and the objects that are large enough there."""

    video: Video | PackedVideo
    annotated: int
    objects: tuple[int, ...]
    source: Source


class SparseVideoClips:
    """Makes clips of an annotated reference frame and other frames near it, which have no label."""

    def __init__(self, options: StageOptions, data: Path) -> None:
        self.options = options
        self.candidates = []
        for source in options.sources:
            found = [usable(video, source, options) for video in training_videos(data, source, options)]
            found = [candidate for candidate in found if candidate is not None]
            if not found:
                raise HodorError(
                    f"{data / source.dataset}: no video of split {source.split!r} has an annotated frame with a large "
                    "enough object and enough frames beside it: lower `min_area` or `min_side` of the stage"
                )
            self.candidates += found

    def plan(self, seed: int) -> Plan:
        """Batches of all steps: each source by its share, its videos uniformly."""
        options, rng = self.options, np.random.default_rng([seed, 5])
        total = options.steps * options.batch
        shares = np.array([source.share for source in options.sources])
        counts = np.ceil(total * shares / shares.sum()).astype(int)
        items = []
        for source, count in zip(options.sources, counts, strict=True):
            members = np.array([i for i, c in enumerate(self.candidates) if c.source == source])
            items.append(in_rounds(members, count, rng))
        items = np.concatenate(items)
        objects = np.array([min(len(c.objects), options.max_objects) for c in self.candidates])[items]
        aspects = np.array([c.video.height / c.video.width for c in self.candidates])[items]
        return plan_batches(items, objects, aspects, steps=options.steps, batch=options.batch, seed=seed)

    def size(self, item: int, objects: int, rng: np.random.Generator) -> warps.Size:
        """Height and width of the clip that `make` gives for the same arguments."""
        video = self.candidates[item].video
        return clip_size((video.height, video.width), self.options)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """One clip of video `item`; `objects` of the annotated frame's objects, at random where it has more."""
        candidate, options = self.candidates[item], self.options
        video = candidate.video
        chosen = np.sort(rng.choice(candidate.objects, objects, replace=False))
        labels = chosen_labels(video.labels(video.frames[candidate.annotated]), chosen)
        others = other_frames(len(video.frames), candidate.annotated, options.frames - 1, candidate.source, rng)
        images = []
        for position in (candidate.annotated, *others):
            image = video.frame(video.frames[position])
            images.append(augment.colour(image, rng, brightness=BRIGHTNESS) if options.colour else image)
        return warp_together(images, [labels] + [None] * len(others), (video.height, video.width), options, rng)


def warp_together(
    images: list[np.ndarray],
    labels: list[np.ndarray | None],
    original: warps.Size,
    options: StageOptions,
    rng: np.random.Generator,
) -> Sample:
    """A clip of frames that all get the same flip and the same warp, which keeps the objects of the first frame.

    `labels`: None for a frame without annotation. `original`: height and width of the video, which may be stored
    smaller.
    """
    reference = labels[0]
    size, objects = reference.shape, np.count_nonzero(label_maps.counts(reference)[1:])
    target = clip_size(original, options)
    least = scaled_area(options.min_area, original, options, size)
    flipped = warps.flip(size) if rng.random() < 0.5 else np.eye(3)
    outer = warps.scaling(size, target) @ flipped
    images = [warps.shrink_image(image, target) for image in images]
    labels = [None if each is None else warps.shrink_labels(each, target) for each in labels]
    inner = warps.scaling(images[0].shape[:2], size)
    for attempt in range(ATTEMPTS):
        inside = augment.video_warp(reference, objects, least, rng) if attempt + 1 < ATTEMPTS else np.eye(3)
        homography = outer @ inside @ inner
        first, valid = clip_labels(labels[0], homography, target, options)
        if visible_at_stride_8(first, objects):
            break
    sample = Sample.empty(target, tuple(each is not None for each in labels))
    sample.valid[:] = valid  # what one warp shows of frames of one size is the same in all
    sample.labels[0] = first
    for i, (image, truth) in enumerate(zip(images, labels, strict=True)):
        clip_image(image, homography, valid, options, out=sample.frames[i])
        if i:
            sample.labels[i] = 0 if truth is None else clip_labels(truth, homography, target, options)[0]
    return sample


def usable(video: Video | PackedVideo, source: Source, options: StageOptions) -> Candidate | None:
    """The video with its annotated frame: the middle-most, or the last, labelled frame with a large enough object.

    None where no frame has one or where the frame has too few others near it.
    """
    order = list(video.labelled)
    if options.annotated_frame == "last":
        order.reverse()
    else:
        middle = (len(order) - 1) / 2
        order.sort(key=lambda frame: abs(video.labelled.index(frame) - middle))
    for frame in order:
        objects = large_objects(video.labels(frame), options, (video.height, video.width))
        if objects:
            position = video.frames.index(frame)
            near = sides(len(video.frames), position, source.max_distance)
            if max(len(side) for side in near) < options.frames - 1:
                return None
            return Candidate(video, position, objects, source)
    return None


def large_objects(labels: np.ndarray, options: StageOptions, original: warps.Size | None = None) -> tuple[int, ...]:
    """Ids in `labels` (H, W) whose area and box sides reach the least; `original`: the video's size, if another."""
    original = original or labels.shape
    area = scaled_area(options.min_area, original, options, labels.shape)
    side = options.min_side * np.sqrt(scaled_area(1.0, original, options, labels.shape))
    out = []
    areas = label_maps.counts(labels)
    for object_id in np.flatnonzero(areas[:VOID]):
        if object_id == 0 or areas[object_id] < area:
            continue
        _, _, *box = cv2.boundingRect(cv2.compare(labels, int(object_id), cv2.CMP_EQ))
        if min(box) >= side:
            out.append(int(object_id))
    return tuple(out)


def sides(frames: int, position: int, distance: int) -> tuple[range, range]:
    """Positions before and after `position` within `distance`."""
    return range(max(0, position - distance), position), range(position + 1, min(frames, position + distance + 1))


def other_frames(frames: int, position: int, count: int, source: Source, rng: np.random.Generator) -> list[int]:
    """`count` frames on one side of the annotated one, drawn without replacement and left unsorted."""
    possible = [side for side in sides(frames, position, source.max_distance) if len(side) >= count]
    side = possible[rng.integers(len(possible))]
    return [int(i) for i in rng.choice(np.array(side), count, replace=False)]
