"""Synthetic videos: objects that move before a moving background, with a label map for every frame.

A scene is drawn once from a random stream (`draw_scene`) and rendered frame by frame (`Scene.render`). Times are stored
frames, lengths pixels.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from hodor.data.synthetic import objects
from hodor.data.synthetic.objects import KINDS, Body, Trajectory
from hodor.errors import HodorError

CROWD = 254  # label of the members of a crowd, only in images

_ATTEMPTS = 100
_EXPOSURES = 3  # of a frame with motion blur


@dataclass(frozen=True)
class SceneSpec:
    """Specification of a scene."""

    world: str  # of its photographs (`objects.PHOTOS`)
    height: int
    width: int
    frames: int  # stored ones
    kinds: tuple[str, ...]  # of the labelled objects
    distractors: int = 0  # unlabelled objects of other colours
    crossing: bool = False  # two objects exchange places
    leaving: bool = False  # the first object leaves the frame and comes back
    late: bool = False  # the last object enters after frame 0
    crowd: bool = False  # a group of small objects is labelled `CROWD`
    light_change: bool = False  # brightness and tint change over time
    exposure: float = 0.0  # fraction of a stored frame for which the shutter is open; 0: no motion blur


@dataclass(frozen=True)
class Scene:
    """A video that is ready to render."""

    spec: SceneSpec
    bodies: tuple[Body, ...]  # back to front
    backdrop: np.ndarray  # uint8 (h, w, 3) RGB, larger than the frame
    camera: Trajectory  # of the frame's centre in the backdrop
    light: np.ndarray  # (3,) amplitude of the light's change in each colour
    light_phase: float
    noise: int  # strength of the sensor noise in grey levels
    noise_seed: int

    @property
    def categories(self) -> dict[int, str]:
        """Id of each labelled object -> its kind."""
        return dict(enumerate(self.spec.kinds, start=1))

    def expose(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Paint one instant: uint8 (H, W, 3) RGB and labels, uint8 (H, W)."""
        height, width = self.spec.height, self.spec.width
        x, y = self.camera.at(time)
        canvas = objects.sample(
            self.backdrop, x - width / 2 + np.arange(width)[None, :], y - height / 2 + np.arange(height)[:, None]
        )
        labels = np.zeros((height, width), np.uint8)
        for body in self.bodies:
            body.draw(canvas, labels, time)
        return canvas, labels

    def render(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Render a stored frame, uint8 (H, W, 3) RGB, and the labels of the middle of its exposure, uint8 (H, W)."""
        shifts = np.arange(_EXPOSURES) - _EXPOSURES // 2 if self.spec.exposure else np.zeros(1)
        exposures = [self.expose(time + self.spec.exposure * float(shift) / _EXPOSURES) for shift in shifts]
        total = sum(canvas.astype(np.int32) for canvas, _ in exposures)
        gain = np.rint(256 * (1 + self.light * math.sin(0.25 * time + self.light_phase))).astype(np.int32)
        rng = np.random.default_rng((self.noise_seed, time))
        noise = rng.integers(-self.noise, self.noise + 1, (2, *total.shape)).sum(0)
        pixels = np.clip(total * gain // (256 * len(exposures)) + noise, 0, 255).astype(np.uint8)
        return pixels, exposures[len(exposures) // 2][1]


def draw_scene(rng: np.random.Generator, spec: SceneSpec) -> Scene:
    """Draw a scene, trajectories until all objects are visible; HodorError if they have no room in the frame."""
    height, width = round(1.3 * spec.height), round(1.3 * spec.width)
    centre, sway = np.array((width, height)) / 2, rng.uniform(0.02, 0.05, 2) * (spec.width, spec.height)
    scene = Scene(
        spec=spec,
        bodies=(),
        backdrop=objects.paint_backdrop(rng, spec.world, height, width),
        camera=Trajectory(centre, centre, 1, False, sway, rng.uniform(0.05, 0.2, 2), rng.uniform(-0.8, 0.8, 2)),
        light=rng.uniform(0.07, 0.18) + rng.uniform(-0.05, 0.05, 3) if spec.light_change else np.zeros(3),
        light_phase=float(rng.uniform(0, 6.28)),
        noise=int(rng.integers(1, 5)),
        noise_seed=int(rng.integers(2**32)),
    )
    bodies = _draw_bodies(rng, spec)
    for _ in range(_ATTEMPTS):
        trial = replace(scene, bodies=_arrange(rng, spec, bodies))
        if _shows_all(trial):
            return trial
    raise HodorError(
        f"synthetic data: no room for {len(spec.kinds)} objects in frames of {spec.height} x {spec.width} pixels; "
        "lower `objects` or `coco_objects`, or make the frames larger"
    )


def _draw_bodies(rng: np.random.Generator, spec: SceneSpec) -> list[Body]:
    """Draw all objects without a trajectory, the labelled ones first."""
    count = len(spec.kinds)
    gap = 1 / max(count, 3)  # between the hues of objects, around the colour wheel
    hues = rng.random() + gap * (np.arange(max(count, 1)) + rng.uniform(-0.3, 0.3, max(count, 1)))
    least, most = np.array((0.06, 0.13)) * min(1.0, 2.5 / max(count, 1))
    bodies = []

    def add(label: int, kind: str, hue: float, saturation: float, area: float) -> None:
        outline = objects.draw_outline(rng, kind)
        shown = np.mean(objects.fill_outline(outline, 64) >= 128)
        side = max(round(math.sqrt(area * spec.height * spec.width / shown)), 8)
        texture = objects.paint_texture(rng, spec.world, hue, saturation, side)
        sprite = np.concatenate((texture, objects.fill_outline(outline, side)[..., None]), -1)
        tilt, spin = (0.1, 0.01) if kind == "walker" else (3.1, 0.04)
        bodies.append(
            Body(
                label=label,
                kind=kind,
                sprite=np.ascontiguousarray(sprite[:, :: int(rng.choice((-1, 1)))]),
                turn=float(rng.uniform(-tilt, tilt)),
                spin=float(rng.uniform(-spin, spin)),
                grow=float(rng.uniform(0, 0.12)),
                pace=float(rng.uniform(0.25, 0.5)),
                phase=float(rng.uniform(0, 6.28)),
            )
        )

    for label, kind in enumerate(spec.kinds, start=1):
        add(label, kind, hues[label - 1], rng.uniform(0.7, 1.0), rng.uniform(least, most))
    for _ in range(spec.distractors):  # of a hue between those of the objects
        add(0, str(rng.choice(KINDS)), rng.choice(hues) + gap / 2, rng.uniform(0.5, 0.9), least)
    crowd_hue = rng.random()
    for _ in range(int(rng.integers(5, 10)) if spec.crowd else 0):
        add(CROWD, "crowd", crowd_hue, 0.8, 0.008)
    return bodies


def _arrange(rng: np.random.Generator, spec: SceneSpec, bodies: list[Body]) -> tuple[Body, ...]:
    """Draw a trajectory of every object; return the objects in a random order."""
    frame, last, count = np.array((spec.width, spec.height), float), spec.frames - 1, len(spec.kinds)
    crowd = rng.uniform(0.25, 0.75, 2)
    places: list[np.ndarray] = []
    for body in bodies:  # the one of a few places that is farthest from the others
        near = body.kind == "crowd"
        free = (crowd + rng.uniform(-0.15, 0.15, (1, 2)) if near else rng.uniform(0.15, 0.85, (6, 2))) * frame
        gaps = [min((math.dist(place, other) for other in places), default=0.0) for place in free]
        places.append(free[int(np.argmax(gaps))])
    placed = []
    for i, body in enumerate(bodies):
        start = end = places[i]
        duration, back = float(max(last, 1)), False
        sway, pace = rng.uniform(0.06, 0.15, 2) * frame, rng.uniform(0.07, 0.18, 2)
        phase = rng.uniform(0, 6.28, 2)
        if spec.late and i == count - 1:
            start, duration, sway = _outside(end, body, frame), 0.6 * last, 0.3 * sway
        elif spec.leaving and i == 0:
            end, back, sway = _outside(start, body, frame), True, 0.3 * sway
        elif spec.crossing and i < 2 <= count - spec.late:
            end, sway = places[1 - i], 0.3 * sway
        placed.append(replace(body, trajectory=Trajectory(start, end, duration, back, sway, pace, phase)))
    return tuple(placed[i] for i in rng.permutation(len(placed)))


def _outside(place: np.ndarray, body: Body, frame: np.ndarray) -> np.ndarray:
    """Return the nearest point at which the object is out of the frame."""
    axis = int(np.argmin(np.minimum(place, frame - place)))
    gap = 0.6 * len(body.sprite) + 0.05 * frame[axis]
    moved = place.copy()
    moved[axis] = frame[axis] + gap if place[axis] > frame[axis] / 2 else -gap
    return moved


def _shows_all(scene: Scene) -> bool:
    """Return whether every object is mostly visible on frame 0, or, if it is late, only on the last frame."""
    spec, count = scene.spec, len(scene.spec.kinds)
    first, final = (np.bincount(scene.expose(t)[1].ravel(), minlength=256) for t in (0, spec.frames - 1))
    for body in scene.bodies:
        late = spec.late and body.label == count
        least = 0.6 * np.count_nonzero(body.sprite[..., 3] >= 128)
        if 0 < body.label <= count and ((final if late else first)[body.label] < least or (late and first[count])):
            return False
    return True
