"""Settings of the generated data (no torch, no OpenCV here: the workflow reads them at every start)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=48, le=2048)]
Size = tuple[Side, Side]


class GeneratedOptions(BaseModel):
    """What the generator writes; the defaults are the mini scale.

    Sizes are (height, width) in pixels; areas are shares of the frame, lengths shares of its width, times
    stored frames. Shares of videos (`distractors` and below) are probabilities per video or image.
    """

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0)

    # Images and videos of each split.
    coco_train: int = Field(500, ge=1, le=100_000)
    coco_val: int = Field(40, ge=1, le=100_000)
    davis_train: int = Field(12, ge=1, le=10_000)
    davis_val: int = Field(10, ge=1, le=10_000)
    davis_test_dev: int = Field(3, ge=1, le=10_000)
    youtube_train: int = Field(48, ge=1, le=10_000)
    youtube_valid: int = Field(6, ge=1, le=10_000)

    # Sizes are taken in turn, so that a split holds all of them once it has as many videos.
    coco_sizes: list[Size] = Field([(120, 160), (160, 120), (128, 160), (112, 168)], min_length=1)
    davis_size: Size = (120, 208)
    youtube_sizes: list[Size] = Field([(120, 208), (112, 176), (128, 160), (160, 112)], min_length=1)
    # Stored frames of a video. YouTube-VOS stores every 5th of 30 a second.
    davis_frames: int = Field(24, ge=2, le=1000)
    youtube_frames: int = Field(12, ge=2, le=1000)

    # Labelled objects: fewest and most; few are more frequent than many.
    objects: tuple[int, int] = (1, 4)
    coco_objects: tuple[int, int] = (1, 4)
    # Visible area that every object has on its first frame.
    first_area: float = Field(0.025, gt=0, le=0.1)
    # Pace of the objects along their way, and the largest step between two stored frames (an object that enters a
    # video of very few frames may have to be faster).
    pace: tuple[float, float] = (0.004, 0.018)
    largest_step: float = Field(0.04, gt=0, le=0.5)

    distractors: Share = 0.35
    occluders: Share = 0.2
    crossing: Share = 0.3
    leaving: Share = 0.25
    # YouTube-VOS alone: an object that enters after the first frame (with `objects` above 1 and 4 frames or more).
    later: Share = 0.5
    motion_blur: Share = 0.3
    light_change: Share = 0.6
    # Objects in the background's own colours.
    camouflage: Share = 0.08
    # Saturation (0..1) of the colours: least and most. The farther apart, the easier it is to see what is an object.
    object_saturation: tuple[Share, Share] = (0.55, 1.0)
    background_saturation: tuple[Share, Share] = (0.05, 0.4)
    # Hues of a video's objects: 0 random, 1 evenly apart.
    hue_spacing: Share = 0.75
    # Factor on the changes of brightness and tint where the light changes.
    light_strength: float = Field(1.0, ge=0, le=3)
    # Standard deviation of the sensor noise in grey levels (0..255): least and most.
    noise: tuple[float, float] = (1.0, 4.0)
    jpeg_quality: int = Field(95, ge=50, le=100)

    @model_validator(mode="after")
    def _ranges(self) -> "GeneratedOptions":
        for name in (
            "objects",
            "coco_objects",
            "pace",
            "noise",
            "object_saturation",
            "background_saturation",
        ):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"`{name}` must be [least, most] with 0 <= least <= most, not [{low}, {high}]")
        for name in ("objects", "coco_objects"):
            low, high = getattr(self, name)
            if low < 1 or high > 8:
                raise ValueError(f"`{name}` must lie in 1..8, not [{low}, {high}]")
        if self.objects[1] * self.first_area > 0.25:
            raise ValueError(
                f"`objects` up to {self.objects[1]} with `first_area` {self.first_area} each would fill the "
                "frame; keep their product at or below 0.25"
            )
        return self
