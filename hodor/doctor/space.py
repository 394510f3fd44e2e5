"""What is still to be written to the disk, in bytes, before the selected rows are trained and scored."""

from pathlib import Path

from hodor import paths
from hodor.config.datasets import archives
from hodor.config.loading import Config
from hodor.config.packs import PackId, stored_size
from hodor.data.prepare import OFFICIAL_COUNTS
from hodor.data.readers import is_video
from hodor.doctor.data import needed_datasets
from hodor.errors import HodorError
from hodor.provenance import read_json
from hodor.records import Records

# Frames of official training splits: those that show an object by YouTube-VOS's meta.json; DAVIS has about 70 a sequence.
FRAMES = {("youtube-vos", "train"): 94_404, ("davis", "train"): 4_219}
# Height and width of a typical picture, rather too large than too small.
PICTURE = {"coco": (480, 640), "coco-persons-small": (400, 400), "youtube-vos": (720, 1280), "davis": (480, 854)}
OTHER_PICTURE = (375, 500)


def needs(
    config: Config, records: Records, folder: Path, run_bytes: dict[str, int]
) -> tuple[dict[str, int], list[str]]:
    """What for -> bytes still to be written below `folder`, and what nobody knows the size of.

    `run_bytes`: row -> bytes of its weights and checkpoints.
    """
    scale, sizes, unknown = config.scale.name, {"archives": 0, "data sets": 0, "packs": 0, "runs": 0}, []
    for dataset in needed_datasets(config) if config.scale.edition != "generated" else ():
        if (folder / paths.manifest(scale, dataset)).is_file():
            continue
        for entry in archives(config.folder / "datasets.csv", dataset, config.scale.edition):
            path = folder / paths.archives(scale, dataset) / entry["archive"]
            there = path.stat().st_size if path.is_file() else 0
            size = there or entry["size"]
            if size is None:
                unknown.append(f"{dataset}/{entry['archive']}")
                continue
            sizes["archives"] += size - there
            sizes["data sets"] += size  # pictures are hardly compressed: extracted they are about as large
    for name, id in config.packs(*config.needed()).items():
        if records.pack_data(name):
            size = pack_bytes(config, folder, id)
            sizes["packs"] += size or 0
            unknown += [] if size else [f"pack {name}"]
    for row, size in run_bytes.items():
        sizes["runs"] += sum(not records.trained(row, seed) for seed in config.seeds) * size
    return sizes, unknown


def pack_bytes(config: Config, folder: Path, id: PackId) -> int | None:
    """About what a pack takes, from the numbers of pictures; None where these are not known."""
    try:
        counts = read_json(folder / paths.manifest(config.scale.name, id.dataset))["splits"][id.split]
    except (HodorError, KeyError):
        if config.scale.edition != "official":
            return None
        counts = dict(OFFICIAL_COUNTS.get(id.dataset, {}).get(id.split, {}))
        if (id.dataset, id.split) in FRAMES:
            counts["frames"] = FRAMES[id.dataset, id.split]
    pictures = counts.get("frames" if is_video(id.dataset) else "images")
    height, width = stored_size(PICTURE.get(id.dataset, OTHER_PICTURE), id.rule)
    return None if pictures is None else 3 * height * width * pictures
