"""Videos out of a pack: what clips use of `hodor.data.video.Video`.

A pack of videos is a folder with shards, `videos.json` (name, frames, labelled, first_seen, height and width of the
original, stored height and width, number of the first frame and of the first mask in the index) and `index.npz` with
the places of all frames (uint8 RGB row by row) and masks (zlib, without loss), `frames` (n, 4) and `masks` (m, 4).
"""

import zlib
from dataclasses import dataclass

import numpy as np

from hodor.data.packed_images import Pack
from hodor.errors import HodorError
from hodor.provenance import read_json

VIDEOS = "videos.json"


class VideoPack(Pack):
    """An open pack of videos."""

    def videos(self) -> list["PackedVideo"]:
        """All videos, in the order of the data set's reader."""
        try:
            return [
                PackedVideo(
                    pack=self,
                    name=entry["name"],
                    frames=tuple(entry["frames"]),
                    height=entry["height"],
                    width=entry["width"],
                    stored=tuple(entry["stored"]),
                    labelled=tuple(entry["labelled"]),
                    first_seen={int(id): frame for id, frame in entry["first_seen"].items()},
                    first_frame=entry["first_frame"],
                    first_mask=entry["first_mask"],
                )
                for entry in read_json(self.folder / VIDEOS)["videos"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise HodorError(f"{self.folder / VIDEOS}: incomplete ({error!r}); pack the data set again") from error


@dataclass(frozen=True)
class PackedVideo:
    """One video. `height` and `width` are those of the original; frames and masks may be stored smaller (`stored`)."""

    pack: VideoPack
    name: str
    frames: tuple[str, ...]
    height: int
    width: int
    stored: tuple[int, int]
    labelled: tuple[str, ...]
    first_seen: dict[int, str]
    first_frame: int
    first_mask: int

    def frame(self, frame: str) -> np.ndarray:
        """uint8 (h, w, 3) RGB at the stored size; HodorError if the shard is damaged."""
        place = self.pack.index["frames"][self.first_frame + self.frames.index(frame)]
        return self.pack.shards.read(place).reshape(*self.stored, 3)

    def labels(self, frame: str) -> np.ndarray:
        """uint8 (h, w) object ids at the stored size, 0 background, 255 void."""
        place = self.pack.index["masks"][self.first_mask + self.labelled.index(frame)]
        plain = zlib.decompress(self.pack.shards.read(place).tobytes())
        return np.frombuffer(bytearray(plain), np.uint8).reshape(self.stored)
