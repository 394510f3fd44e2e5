"""What a training stage reads: its sources as plain data sets, or as packs where the stage says `packed`."""

from collections.abc import Sequence
from pathlib import Path

from hodor.config.packs import PackId, size_rule
from hodor.config.stages import Source, StageOptions
from hodor.data.image_sets import StillImage, load_images
from hodor.data.packed_images import ImagePack
from hodor.data.packed_videos import PackedVideo, VideoPack
from hodor.data.video import Video
from hodor.data.videos import load_videos
from hodor.errors import HodorError
from hodor.provenance import read_json


def packed_folder(data: Path) -> Path:
    """Where the packs and their manifests lie, below the folder of the data sets."""
    return data / "packed"


def training_images(data: Path, source: Source, stage: StageOptions) -> Sequence[StillImage]:
    """The images of a source.

    Raises:
        HodorError: as the reader of the data set, or a pack that is missing or not whole.
    """
    if stage.packed is None:
        return load_images(data / source.dataset, source.dataset, source.split)
    return ImagePack(open_pack(data, PackId(source.dataset, source.split, size_rule(stage)))).images()


def training_videos(data: Path, source: Source, stage: StageOptions) -> Sequence[Video | PackedVideo]:
    """The videos of a source; HodorError as for `training_images`."""
    if stage.packed is None:
        return load_videos(data, source.dataset, source.split)
    return VideoPack(open_pack(data, PackId(source.dataset, source.split, size_rule(stage)))).videos()


def open_pack(data: Path, id: PackId) -> Path:
    """The folder of a pack, after a comparison of its files with its manifest by size.

    Raises:
        HodorError: the pack is not there, or a file of it is missing or has another size.
    """
    folder, manifest = packed_folder(data) / id.name, packed_folder(data) / f"{id.name}.json"
    for name, entry in read_json(manifest)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size"]:
            raise HodorError(
                f"{path}: missing or of another size than {manifest} says; pack the data set again with: "
                f"snakemake --cores all --force -- {manifest}"
            )
    return folder
