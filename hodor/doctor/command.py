"""The verb `doctor`: one line per check, and an error if any finds something wrong."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.loading import Config, load
from hodor.config.stages import stored_size
from hodor.doctor.artefacts import check_dataset, check_pack, check_published, check_released, check_run
from hodor.doctor.cost import archive_bytes, parameters, run_bytes
from hodor.doctor.environment import Finding, check_disk, check_gpu, check_machine, check_packages
from hodor.errors import HodorError

# Number and typical size of the pictures of official training splits, whose packs take most space.
_PICTURES = {
    "coco": (118_287, (480, 640)),
    "youtube-vos": (94_404, (720, 1280)),
    "davis": (4_219, (480, 854)),
}


def doctor(config_folder: Path, overrides: dict[str, Any], folder: Path = Path(), *, deep: bool = False) -> None:
    """Print a line per check.

    Args:
        config_folder: the folder `config` of the repository.
        overrides: keys of config.yaml, as for the workflow (`scale`, `rows`, `mirror`).
        folder: working directory of the workflow.
        deep: compare every checksum of archives, data sets and packs, however large.

    Raises:
        HodorError: something is wrong (after all checks), or a fault in the configuration.
    """
    config, levels = load(config_folder, overrides, folder), []
    for finding in _findings(config, config_folder.resolve().parent, folder, deep):
        print(finding, flush=True)
        levels.append(finding.level)
    wrong = levels.count("wrong")
    print(f"{len(levels)} checks: {levels.count('ok')} ok, {levels.count('warning')} with a warning, {wrong} wrong")
    if wrong:
        raise HodorError(f"{wrong} of {len(levels)} checks found something wrong: the lines above show how to fix it")


def needed_datasets(config: Config) -> list[str]:
    """Return the data sets that the selected rows and the scale's benchmarks read, in the scale's order."""
    wanted = {dataset for row in config.needed() for dataset in config.datasets(row)}
    wanted |= {get_benchmark(benchmark).dataset for benchmark in config.scale.benchmarks}
    return [dataset for dataset in config.scale.datasets if dataset in wanted]


def needed_space(config: Config, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return kind of file -> bytes still to be written below `folder`, and files of unknown size."""
    scale, sizes, unknown = config.scale.name, dict.fromkeys(("archives", "data sets", "packs", "runs"), 0), []
    for dataset in needed_datasets(config):
        if not (folder / paths.manifest(scale, dataset)).is_file():
            known, without = archive_bytes(config, dataset)
            there = (folder / paths.archives(scale, dataset)).glob("*")
            sizes["archives"] += max(known - sum(path.stat().st_size for path in there), 0)
            sizes["data sets"] += known  # images hardly compress: extracted they are about as large
            unknown += without
    for name, id in config.packs(*config.needed()).items():
        if (folder / paths.packed_manifest(scale, name)).is_file() or config.scale.edition == "generated":
            continue
        if id.dataset in _PICTURES and config.scale.edition == "official":
            number, size = _PICTURES[id.dataset]
            sizes["packs"] += 3 * number * math.prod(stored_size(size, id.rule))
        else:
            unknown.append(f"pack {name}")
    for row in config.needed():
        left = sum(not (folder / paths.run(scale, row, seed) / "train.json").is_file() for seed in config.seeds_of(row))
        if left:
            sizes["runs"] += left * run_bytes(parameters(config, row), config.stage(row) is not None)
    return sizes, unknown


def _findings(config: Config, root: Path, folder: Path, deep: bool) -> Iterator[Finding]:
    scale = config.scale.name
    yield from check_packages(root)
    yield from check_machine()
    yield from check_gpu(config.scale.device == "cuda")
    yield from check_disk(folder, *needed_space(config, folder))
    for dataset in needed_datasets(config):
        yield from check_dataset(config, folder, dataset, deep)
    for name in config.packs(*config.needed()):
        yield from check_pack(config, folder, name, deep)
    yield from check_released(config, folder)
    for run in sorted((folder / paths.runs(scale)).glob("*/seed*")):
        yield from check_run(run, folder / paths.results(scale) / "submissions")
    for published in (paths.results(scale), paths.reports(scale)):
        yield from check_published(folder / published)
