"""Clips of videos in which every frame is annotated (specification section 5.5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hodor.config.stages import Source, StageOptions
from hodor.data import augment, warps
from hodor.data.batches import Plan, Sample, in_rounds, plan_batches
from hodor.data.image_clips import clip_size
from hodor.data.label_maps import chosen_labels
from hodor.data.packed_videos import PackedVideo
from hodor.data.packs import training_videos
from hodor.data.video import Video
from hodor.data.video_clips import BRIGHTNESS, large_objects, warp_together
from hodor.errors import HodorError


@dataclass(frozen=True)
class Candidate:
    """A video and the positions in `video.frames` that can be a reference frame: enough labelled frames follow."""

    video: Video | PackedVideo
    references: tuple[int, ...]
    source: Source


class DenseVideoClips:
    """Makes clips of a reference frame and later frames near it, in order of time, all with their labels.

    Which objects of which frames are large enough is only known once a mask is decoded. So a batch is planned by what
    a video's list of objects promises; a clip looks for a frame that keeps it, in the planned video and, where that
    has none, in others of the same source.
    """

    def __init__(self, options: StageOptions, data: Path) -> None:
        self.options = options
        self.candidates = []
        for source in options.sources:
            found = [
                Candidate(video, references, source)
                for video in training_videos(data, source, options)
                if (references := possible_references(video, source, options.frames - 1)) and video.first_seen
            ]
            if not found:
                raise HodorError(
                    f"{data / source.dataset}: no video of split {source.split!r} has {options.frames} labelled frames "
                    f"within {source.max_distance}: raise `max_distance` of the stage or train another stage"
                )
            self.candidates += found

    def plan(self, seed: int) -> Plan:
        """Batches of all steps: each source by its share, object counts in equal shares, videos uniformly."""
        options, rng = self.options, np.random.default_rng([seed, 7])
        counts = np.array([len(candidate.video.first_seen) for candidate in self.candidates])
        shares = sum(source.share for source in options.sources)
        items, objects = [], []
        for source in options.sources:
            pools = {
                n: np.array([i for i, c in enumerate(self.candidates) if c.source == source and counts[i] >= n])
                for n in range(options.max_objects, 0, -1)
            }
            pools = {n: pool for n, pool in pools.items() if len(pool)}
            wanted = -(-round(options.steps * options.batch * source.share / shares) // len(pools))
            for n, pool in pools.items():
                items.append(in_rounds(pool, wanted, rng))
                objects.append(np.full(wanted, n))
        chosen = np.concatenate(items)
        aspects = np.array([c.video.height / c.video.width for c in self.candidates])[chosen]
        kinds = np.concatenate(objects)
        return plan_batches(chosen, kinds, aspects, steps=options.steps, batch=options.batch, seed=seed)

    def make(self, item: int, objects: int, rng: np.random.Generator, step: int = 0) -> Sample:
        """One clip of video `item` with `objects` of its objects.

        Raises:
            HodorError: no frame of the source shows so many large enough objects.
        """
        options = self.options
        candidate, reference, ids = self._chosen(item, objects, rng)
        video = candidate.video
        chosen = np.sort(rng.choice(ids, objects, replace=False))
        later = following(video, reference, candidate.source)
        others = np.sort(rng.choice(later, options.frames - 1, replace=False))
        names = [video.frames[position] for position in (reference, *others)]
        images, tint = [video.frame(name) for name in names], int(rng.integers(2**32))
        if options.colour:  # the same for all frames
            images = [augment.colour(image, np.random.default_rng(tint), brightness=BRIGHTNESS) for image in images]
        labels = [chosen_labels(video.labels(name), chosen) for name in names]
        return warp_together(images, labels, (video.height, video.width), options, rng)

    def size(self, item: int, objects: int, rng: np.random.Generator) -> warps.Size:
        """Height and width of the clip that `make` gives for the same arguments; decodes masks to find its video."""
        video = self._chosen(item, objects, rng)[0].video
        return clip_size((video.height, video.width), self.options)

    def _chosen(self, item: int, objects: int, rng: np.random.Generator) -> tuple[Candidate, int, tuple[int, ...]]:
        """The video of a clip, the position of its reference frame, and the ids of the objects large enough there."""
        for candidate in self._tried(item, rng):
            found = _reference(candidate, objects, self.options, rng)
            if found is not None:
                return candidate, *found
        source = self.candidates[item].source
        raise HodorError(
            f"{source.dataset}, split {source.split!r}: no frame shows {objects} objects that are large enough: "
            "lower `min_area`, `min_side` or `max_objects` of the stage"
        )

    def _tried(self, item: int, rng: np.random.Generator) -> Iterator[Candidate]:
        """The planned video, then the others of its source in random order."""
        planned = self.candidates[item]
        yield planned
        others = [c for c in self.candidates if c.source == planned.source and c is not planned]
        for i in rng.permutation(len(others)):
            yield others[i]


def following(video: Video | PackedVideo, reference: int, source: Source) -> list[int]:
    """Positions of the labelled frames after `reference` within the source's distance."""
    labelled = set(video.labelled)
    last = min(len(video.frames), reference + source.max_distance + 1)
    return [position for position in range(reference + 1, last) if video.frames[position] in labelled]


def possible_references(video: Video | PackedVideo, source: Source, others: int) -> tuple[int, ...]:
    """Positions of the labelled frames that at least `others` labelled frames follow."""
    labelled = set(video.labelled)
    return tuple(
        position
        for position, frame in enumerate(video.frames)
        if frame in labelled and len(following(video, position, source)) >= others
    )


def _reference(
    candidate: Candidate, objects: int, options: StageOptions, rng: np.random.Generator
) -> tuple[int, tuple[int, ...]] | None:
    """A random reference frame with at least `objects` large objects, and their ids; None where there is none."""
    video = candidate.video
    if len(video.first_seen) < objects:
        return None
    for position in rng.permutation(candidate.references):
        ids = large_objects(video.labels(video.frames[position]), options, (video.height, video.width))
        if len(ids) >= objects:
            return int(position), ids
    return None
