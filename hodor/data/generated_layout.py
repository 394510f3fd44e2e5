"""Where the bodies of a generated scene are, how large, where they go and which lies in front."""

from dataclasses import dataclass, replace

import numpy as np

from hodor.config.generated import GeneratedOptions
from hodor.data import generated_ways as ways
from hodor.data.generated_objects import KINDS, Body
from hodor.data.generated_ways import Way


@dataclass(frozen=True)
class SceneSpec:
    """What a scene must hold.

    Attributes:
        height, width: pixels. frames: stored frames (an image is the first frame of a short video).
        objects: number of labelled objects, `late` included.
        least_area: visible share of the frame that each object has on frame 0.
        areas: least and most share of the frame that a body covers, unoccluded.
        late: the last object enters after frame 0. crowd: a group of small bodies labelled `CROWD`.
        exposure: stored frames that the shutter stays open where there is motion blur.
        kinds: that the labelled objects may be of.
    """

    height: int
    width: int
    frames: int
    objects: int
    least_area: float
    areas: tuple[float, float]
    late: bool = False
    crowd: bool = False
    exposure: float = 0.6
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True)
class Extent:
    """How large a body of size 1 is: `area` in square pixels, `reach` from its centre to its farthest pixel."""

    area: float
    reach: float


def measure(body: Body) -> Extent:
    """Draws the body at time 0 and looks; a body of one part is measured by its contour."""
    if len(body.parts) == 1:
        part = body.parts[0]
        radius = part.radius(0.0)
        area = float(np.pi * np.mean(radius**2) * part.axes.prod())
        return Extent(area=area, reach=float(part.axes.max() * radius.max()))
    size, side = 12.0, 80
    labels = np.zeros((side, side), np.uint8)
    standing = Way(np.full((2, 2), side / 2), 1.0)
    replace(body, size=size, label=1, way=standing).draw(None, labels, 0.0)
    y, x = np.nonzero(labels)
    reach = np.hypot(x - side / 2, y - side / 2).max(initial=1)
    return Extent(area=max(len(x), 1) / size**2, reach=float(reach) / size)


def arrange(
    rng: np.random.Generator,
    spec: SceneSpec,
    options: GeneratedOptions,
    bodies: list[tuple[Body, float, Extent]],
    drift: Way,
    haste: float = 1.0,
) -> list[Body]:
    """Gives every body a size and a way.

    Args:
        bodies: (body, share of the frame that it covers, extent); the labelled ones first, by id.
        drift: way of the background over the frame, in pixels; poles stand still on it.
        haste: factor on the largest step of an object that enters late.

    Returns:
        The bodies back to front: a random order, poles in front of all.
    """
    frame = np.array((spec.width, spec.height), np.float64)
    count, segment = ways.way_points(spec.frames)
    largest = 0.95 * options.largest_step * spec.width
    sizes = [float(np.sqrt(share * spec.height * spec.width / extent.area)) for _, share, extent in bodies]
    huddle = rng.uniform(0.25, 0.75, 2) * frame
    starts: list[np.ndarray] = []
    radii = [float(np.sqrt(share * spec.height * spec.width / np.pi)) for _, share, _ in bodies]
    for (body, _, _), radius in zip(bodies, radii, strict=True):
        starts.append(ways.start(rng, frame, radius, starts, huddle if body.kind == "crowd" else None))
    pair = (0, 1) if spec.objects - spec.late >= 2 and rng.random() < options.crossing else ()
    leaver = int(rng.integers(spec.objects)) if spec.objects and rng.random() < options.leaving else -1

    placed = []
    for index, (body, _, extent) in enumerate(bodies):
        begin, reach = starts[index], extent.reach * sizes[index]
        if body.kind == "pole":
            begin[1] = frame[1] / 2
            points = begin + drift.points - drift.points[0]
        elif spec.late and index == spec.objects - 1:
            delay = 0.2 * options.largest_step * spec.width * spec.frames
            points = ways.enter(rng, begin, reach, frame, count, delay)
        elif index in pair:
            points = ways.cross(rng, begin, starts[pair[1 - index]], frame, count)
        elif index == leaver:
            points = ways.leave(rng, ways.to_border(begin, radii[index], frame), reach, frame, count)
        else:
            points = ways.wander(rng, begin, frame, count, rng.uniform(*options.pace) * spec.width * segment)
        late = spec.late and index == spec.objects - 1
        way = Way(points, segment).within(spec.frames, largest * (haste if late else 1.0))
        placed.append(replace(body, size=sizes[index], way=way))
    front = [body for body in placed if body.kind == "pole"]
    rest = [body for body in placed if body.kind != "pole"]
    return [rest[index] for index in rng.permutation(len(rest))] + front
