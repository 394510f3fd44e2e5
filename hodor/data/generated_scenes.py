"""Scenes of the generated worlds: bodies over a moving background, lit, blurred and noisy, with label maps.

A scene is drawn once from a random stream (`draw_scene`) and rendered frame by frame (`Scene.render`);
rendering has no state, so frames come out the same in any order. Times are stored frames, lengths pixels.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hodor.config.generated import GeneratedOptions
from hodor.data.generated_layout import Extent, SceneSpec, arrange, measure
from hodor.data.generated_objects import KINDS, Body, draw_parts
from hodor.data.generated_textures import Look, TextureBank
from hodor.data.generated_ways import Way, way_points
from hodor.errors import HodorError

CROWD = 254
"""Label of the members of a crowd (images alone); 255 would mean void."""

APPEARED = 0.5
"""A late object counts as there once it covers this share of `SceneSpec.least_area`."""

_ATTEMPTS = 200


@dataclass(frozen=True)
class Light:
    """Light and sensor.

    Attributes:
        wave, pace, phase: of the brightness over time. tint: (3,) change of the colours at the wave's crest.
        shadow: darkening of a soft band that sweeps over the frame, 0 for none; its angle (radians), its pace
            (frame widths per stored frame) and its place at time 0.
        noise: standard deviation in grey levels. noise_seed: frames add their time to it.
    """

    wave: float
    pace: float
    phase: float
    tint: np.ndarray
    shadow: float
    shadow_angle: float
    shadow_pace: float
    shadow_start: float
    noise: float
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    """A scene that is ready to render.

    Attributes:
        bodies: back to front.
        backdrop: uint8 (h, w, 3) RGB. camera: way of the frame's centre in it.
        zoom: its pixels per frame pixel. zoom_rate, roll: factor on it and turn (radians) per stored frame.
        subframes: renderings averaged for motion blur (odd), 1 without.
    """

    spec: SceneSpec
    bodies: tuple[Body, ...]
    backdrop: np.ndarray
    camera: Way
    zoom: float
    zoom_rate: float
    roll: float
    light: Light
    subframes: int

    @property
    def kinds(self) -> dict[int, str]:
        """Id of each labelled object -> its kind, in the order of the ids."""
        return {b.label: b.kind for b in sorted(self.bodies, key=lambda b: b.label) if 0 < b.label < CROWD}

    def labels(self, time: float) -> np.ndarray:
        """uint8 (H, W): id of the visible object at each pixel, 0 background, distractors and poles."""
        labels = np.zeros((self.spec.height, self.spec.width), np.uint8)
        for body in self.bodies:
            body.draw(None, labels, time)
        return labels

    def render(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """A stored frame, uint8 (H, W, 3) RGB, and its label map, uint8 (H, W), of the shutter's middle."""
        shifts = (np.arange(self.subframes) - self.subframes // 2) * (self.spec.exposure / self.subframes)
        exposures = [self._expose(time + float(shift)) for shift in shifts]
        mean = sum(canvas for canvas, _ in exposures) / np.float32(self.subframes)
        return self._develop(mean, time), exposures[self.subframes // 2][1]

    def _expose(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.spec.height, self.spec.width
        zoom, angle = self.zoom * self.zoom_rate**time, self.roll * time
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        x, y = self.camera.at(time)
        matrix = np.array(((cos, -sin, x), (sin, cos, y)))  # frame pixel -> backdrop pixel
        matrix[:, 2] -= matrix[:, :2] @ (width / 2, height / 2)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        canvas = cv2.warpAffine(
            self.backdrop, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        ).astype(np.float32)
        labels = np.zeros((height, width), np.uint8)
        for body in self.bodies:
            body.draw(canvas, labels, time)
        return canvas, labels

    def _develop(self, canvas: np.ndarray, time: int) -> np.ndarray:
        light, (height, width) = self.light, canvas.shape[:2]
        crest = np.sin(light.pace * time + light.phase)
        canvas = canvas * ((1 + light.wave * crest) * (1 + light.tint * crest)).astype(np.float32)
        if light.shadow:
            y, x = np.ogrid[0:height, 0:width]
            along = (np.cos(light.shadow_angle) * x + np.sin(light.shadow_angle) * y) / width
            place = along - light.shadow_start - light.shadow_pace * time
            band = 1 / (1 + np.exp(-30 * place)) / (1 + np.exp(30 * (place - 0.35)))
            canvas *= (1 - light.shadow * band).astype(np.float32)[..., None]
        rng = np.random.default_rng((light.noise_seed, time))
        canvas += np.float32(light.noise) * rng.standard_normal(canvas.shape, dtype=np.float32)
        return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def draw_scene(rng: np.random.Generator, bank: TextureBank, spec: SceneSpec, options: GeneratedOptions) -> Scene:
    """Draws a scene; where objects end up too small or hidden on frame 0, their places are drawn again.

    Raises:
        HodorError: so many or such large objects were asked for that no arrangement was found.
    """
    zoom = float(rng.uniform(0.9, 1.5))
    backdrop = bank.draw_backdrop(rng, round(1.3 * zoom * spec.height), round(1.3 * zoom * spec.width))
    camera = _draw_camera(rng, spec, options, zoom, backdrop.crop[2:])
    bodies = _draw_bodies(rng, bank, backdrop, spec, options)
    scene = Scene(
        spec=spec,
        bodies=(),
        backdrop=bank.paint_backdrop(backdrop),
        camera=camera,
        zoom=zoom,
        zoom_rate=float(np.exp(rng.uniform(-0.008, 0.008))),
        roll=float(rng.uniform(-0.004, 0.004)),
        light=_draw_light(rng, options),
        subframes=3 if rng.random() < options.motion_blur else 1,
    )
    drift = Way(-camera.points / zoom, camera.segment)
    for attempt in range(_ATTEMPTS):
        # In a video of a few frames an object may have to hurry to enter at all.
        haste = 1.0 if attempt < _ATTEMPTS // 4 else 4.0
        trial = replace(scene, bodies=tuple(arrange(rng, spec, options, bodies, drift, haste)))
        if _accepted(trial):
            return trial
    raise HodorError(
        f"generated data: found no place for {spec.objects} objects of at least {spec.least_area:.1%} each on "
        f"frames of {spec.height} x {spec.width}; lower `objects` or `first_area`"
    )


def _draw_camera(rng, spec: SceneSpec, options: GeneratedOptions, zoom: float, size: tuple[int, int]) -> Way:
    """A pan with a shake around the backdrop's middle; `size` is the backdrop's (height, width)."""
    count, segment = way_points(spec.frames)
    shares = np.linspace(-0.5, 0.5, count)[:, None] * rng.uniform(-0.3, 0.3, 2) + rng.normal(0, 0.02, (count, 2))
    points = (0.5 + shares) * (size[1], size[0])
    return Way(points, segment).within(spec.frames, options.largest_step * spec.width * zoom)


def _draw_light(rng: np.random.Generator, options: GeneratedOptions) -> Light:
    changes = rng.random() < options.light_change
    return Light(
        wave=float(options.light_strength * rng.uniform(0.08, 0.25)) if changes else 0.0,
        pace=float(rng.uniform(0.1, 0.35)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        tint=options.light_strength * rng.uniform(-0.06, 0.06, 3) if changes else np.zeros(3),
        shadow=float(rng.uniform(0.15, 0.4)) if changes and rng.random() < 0.5 else 0.0,
        shadow_angle=float(rng.uniform(-0.6, 0.6)),
        shadow_pace=float(rng.uniform(0.02, 0.05)),
        shadow_start=float(rng.uniform(-0.5, 0.5)),
        noise=float(rng.uniform(*options.noise)),
        noise_seed=int(rng.integers(0, 2**32)),
    )


def _draw_bodies(
    rng, bank: TextureBank, backdrop, spec: SceneSpec, options: GeneratedOptions
) -> list[tuple[Body, float, Extent]]:
    """Bodies without places, the labelled ones first: (body, share of the frame that it covers, extent)."""
    bodies: list[tuple[Body, float, Extent]] = []
    looks: list[Look] = []

    def add(label: int, kind: str, look: Look, share: float) -> None:
        body = _draw_body(rng, label, kind, bank.paint(look))
        bodies.append((body, share, measure(body)))

    camouflage = rng.random() < options.camouflage
    first_hue = rng.random()
    for index in range(spec.objects):
        # Between anywhere (0) and evenly around the colour wheel (1).
        even = options.hue_spacing
        hue = first_hue + even * index / max(spec.objects, 3) + (1 - even) * rng.uniform(-0.5, 0.5)
        hidden = camouflage and index == 0
        looks.append(bank.draw_camouflage(rng, backdrop) if hidden else bank.draw_look(rng, hue, backdrop.photo))
        add(index + 1, str(rng.choice(spec.kinds)), looks[-1], _draw_share(rng, spec))
    if spec.objects and rng.random() < options.distractors:
        for _ in range(int(rng.integers(1, 3))):
            twin = int(rng.integers(len(looks)))
            kind = bodies[twin][0].kind if rng.random() < 0.5 else str(rng.choice(KINDS))
            add(0, kind, bank.draw_lookalike(rng, looks[twin]), 0.8 * _draw_share(rng, spec))
    if spec.crowd:
        look = bank.draw_look(rng, first_hue + rng.random(), backdrop.photo)
        for _ in range(int(rng.integers(5, 10))):
            add(CROWD, "crowd", look, 0.008)
    if rng.random() < options.occluders:
        add(0, "pole", bank.draw_dull(rng, backdrop.photo), float(rng.uniform(0.04, 0.09)))
    return bodies


def _draw_share(rng: np.random.Generator, spec: SceneSpec) -> float:
    """Share of the frame that a body covers: log-uniform in `areas`; among many objects, in its lower part."""
    low, high = spec.areas
    return float(low * (high / low) ** (rng.random() * (1.0 if spec.objects < 3 else 0.45)))


def _draw_body(rng: np.random.Generator, label: int, kind: str, texture: np.ndarray) -> Body:
    upright = kind in ("walker", "pole")
    lively = kind in ("blob", "star", "crowd")
    return Body(
        label=label,
        kind=kind,
        parts=draw_parts(rng, kind),
        size=1.0,  # until `arrange` gives it one, and a way
        texture=texture,
        way=Way(np.zeros((2, 2)), 1.0),
        turn=float(rng.uniform(-0.25, 0.25) if upright else rng.uniform(-np.pi, np.pi)),
        spin=float(rng.uniform(-0.06, 0.06) if lively else rng.uniform(-0.012, 0.012) * (kind != "pole")),
        sway=float(rng.uniform(0, 0.2)) * (kind != "pole"),
        grow=float(rng.uniform(0, 0.18)) * (kind != "pole"),
        grow_pace=float(rng.uniform(0.12, 0.35)),
        grow_phase=float(rng.uniform(0, 2 * np.pi)),
        flip=bool(rng.random() < 0.5),
        shade=float(rng.uniform(0.1, 0.4)),
        light=(float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.2, 0.0))),
    )


def _accepted(scene: Scene) -> bool:
    """Every early object is large enough on frame 0; a late one is absent there and large enough later."""
    spec = scene.spec
    least = spec.least_area * spec.height * spec.width
    seen = np.bincount(scene.labels(0).ravel(), minlength=256)
    early = spec.objects - spec.late
    if (seen[1 : early + 1] < least).any() or (spec.crowd and seen[CROWD] < least):
        return False
    if not spec.late:
        return True
    if seen[spec.objects]:
        return False
    later = (scene.labels(time) for time in range(1, spec.frames - 1))
    return any(np.count_nonzero(labels == spec.objects) >= APPEARED * least for labels in later)
