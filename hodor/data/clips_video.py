"""Clips of videos with one annotated frame, and with annotations of every frame (hodor specification 5.4, 5.5)."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import augmentations, transforms
from hodor.data.clips_image import ATTEMPTS, Clips, clip_size, scaled_area, warped_clip
from hodor.data.dataset import Plan, Sample, in_rounds
from hodor.data.images import VOID
from hodor.data.readers import load_videos
from hodor.data.transforms import Size, chosen_labels
from hodor.data.video import Video
from hodor.errors import HodorError

BRIGHTNESS = 20


@dataclass(frozen=True)
class Candidate:
    """A video with the positions in `video.frames` of its possible reference frames, and the ids of its objects.

    In sparse clips there is one position, the annotated frame, and the objects are those that are large enough there.
    """

    video: Video
    references: tuple[int, ...]
    objects: tuple[int, ...]
    source: Source

    @property
    def size(self) -> Size:
        return self.video.height, self.video.width


class VideoClips(Clips):
    """Clips of videos; a subclass defines which frames a clip shows."""

    demand = ""  # what a video must have, and which setting to change, for an error message

    def usable(self, source: Source, data: Path) -> list[Candidate]:
        videos = load_videos(data, source.dataset, source.split)
        found = [candidate for video in videos if (candidate := self.candidate(video, source))]
        if not found:
            demand = self.demand.format(frames=self.options.frames, distance=source.max_distance)
            raise HodorError(f"{data / source.dataset}: no video of split {source.split!r} has {demand}")
        return found

    @abstractmethod
    def candidate(self, video: Video, source: Source) -> Candidate | None:
        """Return the video if clips can be made of it, else None."""

    def of_source(self, source: Source, objects: int = 0) -> np.ndarray:
        """Return the numbers of the candidates of a source that have at least `objects` objects."""
        numbered = enumerate(self.candidates)
        return np.array([i for i, c in numbered if c.source == source and len(c.objects) >= objects], int)

    def clip(self, images: list, labels: list, objects: int, rng: np.random.Generator) -> Sample:
        """Make a clip of frames under one warp, which keeps the `objects` of the first frame; see `warped_clip`."""

        def draw(attempt: int, least: float) -> list[np.ndarray]:
            last = attempt + 1 == ATTEMPTS
            return [np.eye(3) if last else augmentations.video_warp(labels[0], objects, least, rng)] * len(images)

        return warped_clip(images, labels, draw, objects, self.options, rng)


class SparseVideoClips(VideoClips):
    """Clips of an annotated reference frame and other frames near it, which have no labels."""

    demand = "an annotated frame with a large enough object and enough frames beside it: lower `min_area` or `min_side`"

    def candidate(self, video: Video, source: Source) -> Candidate | None:
        return usable(video, source, self.options)

    def plan(self, seed: int) -> Plan:
        """Plan the batches of all steps: each source by its share, its videos uniformly."""
        options, rng = self.options, np.random.default_rng([seed, 5])
        shares = np.array([source.share for source in options.sources])
        counts = np.ceil(options.steps * options.batch * shares / shares.sum()).astype(int)
        pairs = zip(options.sources, counts, strict=True)
        items = np.concatenate([in_rounds(self.of_source(source), count, rng) for source, count in pairs])
        objects = np.array([min(len(c.objects), options.max_objects) for c in self.candidates])[items]
        return self.batches(items, objects, seed)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """Make one clip of video `item` with `objects` of the annotated frame's objects, drawn at random."""
        candidate, options = self.candidates[item], self.options
        video, (annotated,) = candidate.video, candidate.references
        chosen = np.sort(rng.choice(candidate.objects, objects, replace=False))
        labels = chosen_labels(video.labels(video.frames[annotated]), chosen)
        others = other_frames(len(video.frames), annotated, options.frames - 1, candidate.source, rng)
        images = []
        for position in (annotated, *others):
            image = video.frame(video.frames[position])
            images.append(augmentations.colour(image, rng, brightness=BRIGHTNESS) if options.colour else image)
        return self.clip(images, [labels] + [None] * len(others), objects, rng)


class DenseVideoClips(VideoClips):
    """Clips of a reference frame and later frames near it, in temporal order, all with labels.

    Whether objects are large enough is known only when a mask is decoded. So a batch is planned by the number of
    objects of a video; `make` searches a frame that shows that many, in this video and then in others of its source.
    """

    demand = "{frames} labelled frames within {distance}: raise `max_distance` of the stage or train another stage"

    def candidate(self, video: Video, source: Source) -> Candidate | None:
        references = possible_references(video, source, self.options.frames - 1)
        objects = tuple(video.first_seen)
        return Candidate(video, references, objects, source) if references and objects else None

    def plan(self, seed: int) -> Plan:
        """Plan the batches of all steps: each source by its share, object counts in equal shares, videos uniformly."""
        options, rng = self.options, np.random.default_rng([seed, 7])
        shares = sum(source.share for source in options.sources)
        items, objects = [], []
        for source in options.sources:
            pools = {n: self.of_source(source, n) for n in range(options.max_objects, 0, -1)}
            pools = {n: pool for n, pool in pools.items() if len(pool)}
            wanted = -(-round(options.steps * options.batch * source.share / shares) // len(pools))
            items += [in_rounds(pool, wanted, rng) for pool in pools.values()]
            objects += [np.full(wanted, n) for n in pools]
        return self.batches(np.concatenate(items), np.concatenate(objects), seed)

    def size(self, item: int, objects: int, rng: np.random.Generator) -> Size:
        """Return height and width of the clip that `make` returns for the same arguments; masks are decoded for it."""
        return clip_size(self._chosen(item, objects, rng)[0].size, self.options)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """Make one clip of video `item` with `objects` of its objects; HodorError if no frame shows that many."""
        options = self.options
        candidate, reference, ids = self._chosen(item, objects, rng)
        video = candidate.video
        chosen = np.sort(rng.choice(ids, objects, replace=False))
        later = following(video, reference, candidate.source)
        others = np.sort(rng.choice(later, options.frames - 1, replace=False))
        names = [video.frames[position] for position in (reference, *others)]
        images, tint = [video.frame(name) for name in names], int(rng.integers(2**32))
        if options.colour:  # the same change for all frames
            images = [augmentations.colour(i, np.random.default_rng(tint), brightness=BRIGHTNESS) for i in images]
        labels = [chosen_labels(video.labels(name), chosen) for name in names]
        return self.clip(images, labels, objects, rng)

    def _chosen(self, item: int, objects: int, rng: np.random.Generator) -> tuple[Candidate, int, tuple[int, ...]]:
        """Return video and position of the reference frame of a clip, and the ids of the objects large enough there."""
        for candidate in self._tried(item, rng):
            if len(candidate.objects) < objects:
                continue
            video = candidate.video
            for position in rng.permutation(candidate.references):
                ids = large_objects(video.labels(video.frames[position]), self.options)
                if len(ids) >= objects:
                    return candidate, int(position), ids
        source = self.candidates[item].source
        raise HodorError(
            f"{source.dataset}, split {source.split!r}: no frame shows {objects} objects that are large enough; "
            "lower `min_area`, `min_side` or `max_objects` of the stage"
        )

    def _tried(self, item: int, rng: np.random.Generator) -> Iterator[Candidate]:
        """Yield the planned video, then the others of its source in random order."""
        planned = self.candidates[item]
        yield planned
        others = [c for c in self.candidates if c.source == planned.source and c is not planned]
        for i in rng.permutation(len(others)):
            yield others[i]


def usable(video: Video, source: Source, options: StageOptions) -> Candidate | None:
    """Return the video with its annotated frame: the one with a large enough object nearest to the middle or end.

    None if no labelled frame has such an object, or if that frame has too few others near it.
    """
    last = len(video.labelled) - 1
    target = last if options.annotated_frame == "last" else last / 2
    order = sorted(range(last + 1), key=lambda i: abs(i - target))
    for frame in (video.labelled[i] for i in order):
        if objects := large_objects(video.labels(frame), options):
            position = video.frames.index(frame)
            near = max(map(len, sides(len(video.frames), position, source.max_distance)))
            return Candidate(video, (position,), objects, source) if near >= options.frames - 1 else None
    return None


def large_objects(labels: np.ndarray, options: StageOptions) -> tuple[int, ...]:
    """Return the ids in `labels` (H, W) whose area and box sides are large enough."""
    area = scaled_area(options.min_area, labels.shape, options)
    side = options.min_side * np.sqrt(scaled_area(1.0, labels.shape, options))
    areas = transforms.count_labels(labels)[1:VOID]
    large = (np.flatnonzero((areas > 0) & (areas >= area)) + 1).tolist()
    return tuple(i for i in large if min(cv2.boundingRect(cv2.compare(labels, i, cv2.CMP_EQ))[2:]) >= side)


def sides(frames: int, position: int, distance: int) -> tuple[range, range]:
    """Return the positions before and after `position` within `distance`."""
    return range(max(0, position - distance), position), range(position + 1, min(frames, position + distance + 1))


def other_frames(frames: int, position: int, count: int, source: Source, rng: np.random.Generator) -> list[int]:
    """Draw `count` frames on one side of the annotated one, without replacement and unsorted."""
    possible = [side for side in sides(frames, position, source.max_distance) if len(side) >= count]
    side = possible[rng.integers(len(possible))]
    return [int(i) for i in rng.choice(np.array(side), count, replace=False)]


def following(video: Video, reference: int, source: Source) -> list[int]:
    """Return the positions of the labelled frames after `reference` within the source's distance."""
    labelled, later = set(video.labelled), sides(len(video.frames), reference, source.max_distance)[1]
    return [position for position in later if video.frames[position] in labelled]


def possible_references(video: Video, source: Source, others: int) -> tuple[int, ...]:
    """Return the positions of the labelled frames that at least `others` labelled frames follow."""
    positions = map(video.frames.index, video.labelled)
    return tuple(position for position in positions if len(following(video, position, source)) >= others)
