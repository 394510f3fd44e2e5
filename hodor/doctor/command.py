"""The verb `doctor`: one line a check, and an error if one of them found something wrong."""

from pathlib import Path
from typing import Any

from hodor.config.loading import Config, load
from hodor.doctor.data import check_archives, check_dataset, check_pack, needed_datasets
from hodor.doctor.environment import check_disk, check_gpu, check_packages
from hodor.doctor.findings import Finding, Findings
from hodor.doctor.released import check_released
from hodor.doctor.rows import count, require_positive, run_bytes, try_row
from hodor.doctor.runs import check_run
from hodor.doctor.space import needs
from hodor.errors import HodorError
from hodor.records import Records
from hodor.stamps import Stamps

STEPS = {"paper": 20}
"""Scale -> training steps of each row that are tried if the command line does not say; 0 where none is named."""


def doctor(
    config_folder: Path,
    overrides: dict[str, Any],
    folder: Path = Path(),
    *,
    deep: bool = False,
    steps: int | None = None,
    seconds: float = 60.0,
) -> None:
    """Prints what it finds, a line a check.

    Args:
        config_folder: the folder `config`; the repository is the folder that holds it.
        overrides: keys of config.yaml, as for the workflow (`scale`, `rows`).
        folder: working directory, below which data and runs lie.
        deep: compare every checksum.
        steps: training steps of each row; None: as `STEPS` says.
        seconds: for each row, after which no further step is begun.

    Raises:
        HodorError: something is wrong (after all checks), or a fault in the configuration.
    """
    config = load(config_folder, overrides)
    steps = STEPS.get(config.scale.name, 0) if steps is None else steps
    require_positive(steps=steps, seconds=seconds)
    levels = [_show(finding) for finding in _all(config, config_folder, folder, deep, steps, seconds)]
    wrong = levels.count("wrong")
    print(f"{len(levels)} checks: {levels.count('ok')} ok, {levels.count('warning')} with a warning, {wrong} wrong")
    if wrong:
        raise HodorError(f"{wrong} of {len(levels)} checks found something wrong: the lines above say what mends it")


def _all(config: Config, config_folder: Path, folder: Path, deep: bool, steps: int, seconds: float) -> Findings:
    stamps = Stamps(config, config_folder.resolve().parent)
    records = Records(stamps, folder)
    yield from check_packages(config_folder.resolve().parent)
    yield from check_gpu(config.scale.device == "cuda")
    for dataset in needed_datasets(config):
        yield from check_archives(config, folder, dataset, deep)
        yield from check_dataset(config, folder, dataset, deep)
    for id in config.packs(*config.needed()).values():
        yield from check_pack(config, records, folder, id, deep)
    for row in config.needed():
        for seed in config.seeds:
            yield from check_run(stamps, folder, row, seed)
    yield from check_released(config, folder)
    counted = {row: count(config, row) for row in config.needed()}
    sizes = {row: run_bytes(found, config.stage(row) is not None) for row, found in counted.items()}
    yield from check_disk(folder, *needs(config, records, folder, sizes))
    for row in config.needed() if steps else ():
        yield from try_row(config, row, counted[row], folder, steps, seconds)


def _show(finding: Finding) -> str:
    print(finding.line(), flush=True)
    return finding.level
