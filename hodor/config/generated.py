"""Options of the synthetic data sets (edition `generated`)."""

from typing import Annotated

from pydantic import Field, model_validator

from hodor.config.reading import Strict

_Count = Annotated[int, Field(ge=1, le=100_000)]
_Length = Annotated[int, Field(ge=2, le=1000)]
_Side = Annotated[int, Field(ge=48, le=2048)]
_Size = tuple[_Side, _Side]
_Sizes = Annotated[list[_Size], Field(min_length=1)]
_Objects = Annotated[int, Field(ge=1, le=8)]


class GeneratedOptions(Strict):
    """Sizes of the synthetic data sets; the defaults are those of scale mini."""

    seed: int = Field(0, ge=0, description="seed of all random numbers; the same seed gives the same bytes")
    coco_train: _Count = Field(500, description="images of COCO train2017")
    coco_val: _Count = Field(40, description="images of COCO val2017")
    davis_train: _Count = Field(12, description="sequences of DAVIS train (2017, 2016)")
    davis_val: _Count = Field(10, description="sequences of DAVIS val (2017, 2016)")
    davis_test_dev: _Count = Field(3, description="sequences of DAVIS-2017 test-dev")
    youtube_train: _Count = Field(48, description="videos of YouTube-VOS train")
    youtube_valid: _Count = Field(6, description="videos of YouTube-VOS valid")
    coco_sizes: _Sizes = Field(
        [(120, 160), (160, 120), (128, 160), (112, 168)], description="(height, width) of the images, used in turn"
    )
    davis_size: _Size = Field((120, 208), description="(height, width) of the DAVIS frames")
    youtube_sizes: _Sizes = Field(
        [(120, 208), (112, 176), (128, 160), (160, 112)],
        description="(height, width) of the YouTube-VOS videos, in turn",
    )
    davis_frames: _Length = Field(24, description="frames of a DAVIS sequence")
    youtube_frames: _Length = Field(12, description="stored frames of a YouTube-VOS video, 6 a second")
    objects: tuple[_Objects, _Objects] = Field((1, 3), description="fewest and most objects of a video")
    coco_objects: tuple[_Objects, _Objects] = Field((1, 4), description="fewest and most objects of an image")

    @model_validator(mode="after")
    def _ranges(self) -> "GeneratedOptions":
        for name in ("objects", "coco_objects"):
            fewest, most = getattr(self, name)
            if fewest > most:
                raise ValueError(f"`{name}` must be [fewest, most] with fewest <= most, not [{fewest}, {most}]")
        return self
