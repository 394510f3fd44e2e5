"""The verb `fetch` for people: download archives by name into the folders of the workflow."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.config.datasets import ARCHIVES, RECORD, RELEASED, SOURCES, WEIGHT_SETS, archives
from hodor.config.loading import Config, load
from hodor.config.validation import none_of
from hodor.data.checksums import LockFile
from hodor.data.fetch import Missing, Request, fetch_all
from hodor.data.progress import format_bytes
from hodor.errors import HodorError
from hodor.provenance import read_json


def fetch_command(
    names: Sequence[str],
    folder: Path = Path("config"),
    scale: str | None = None,
    mirror: str | None = None,
    *,
    wait: bool = False,
    pause: float = 15.0,
) -> None:
    """Download data sets and weights, several archives at once, and print their sizes and checksums.

    Args:
        names: ids of config/datasets.csv; `weights` for the scale's starting weights and the authors' checkpoints; `all`
            for the data sets of the scale and `weights`; empty for the data sets of the scale.
        folder: configuration folder.
        scale: scale instead of that of config.yaml.
        mirror: mirror instead of those of config.yaml and of the variable HODOR_MIRROR.
        wait: wait for archives that must be downloaded by hand, and look for them every `pause` seconds.

    Raises:
        HodorError: an unknown name, or an error of `hodor.data.fetch.fetch_all`.
    """
    chosen: dict[str, Any] = {"scale": scale} if scale else {}
    if mirror := mirror or os.environ.get("HODOR_MIRROR"):
        chosen["mirror"] = mirror
    config = load(folder, chosen)
    requests = [_request(config, name) for name in _datasets(config, names)]
    while True:
        try:
            fetch_all(requests)
            break
        except Missing as missing:
            if not wait:
                raise
            print(f"{missing}\nwaiting for the files; press Ctrl-C to stop", flush=True)
            while not all(path.is_file() for path in missing.files):
                time.sleep(pause)
            before = None  # wait until they have stopped growing: they may still be copied
            while (sizes := [path.stat().st_size for path in missing.files]) != before:
                before = sizes
                time.sleep(pause)
    for request in requests:
        for archive, record in read_json(request.out / RECORD).items():
            print(f"{request.out / archive}: {format_bytes(record['size'])}, sha256 {record['sha256']}")


def _datasets(config: Config, names: Sequence[str]) -> list[str]:
    """Return the ids of the data sets of names and groups, each once."""
    of_scale = list(config.scale.datasets)
    weights = [name for name in of_scale if name in WEIGHT_SETS] + list(RELEASED)
    groups = {"all": of_scale + weights, "weights": weights}
    wanted = []
    for name in names or of_scale:
        if name not in SOURCES and name not in groups:
            raise HodorError(none_of(name, [*groups, *SOURCES]))
        wanted += groups.get(name, [name])
    if config.scale.edition == "generated":
        wanted = [name for name in wanted if name in RELEASED or name in config.own]
        if not names or any(name not in (*groups, *wanted) for name in names):
            raise HodorError(
                f"scale {config.scale.name} generates its data (snakemake --cores all --config "
                f"scale={config.scale.name} -- data); choose another scale, for example --scale paper"
            )
    return list(dict.fromkeys(wanted))


def _request(config: Config, name: str) -> Request:
    edition = config.edition(name) if name in ARCHIVES else "official"
    out = paths.released(name) if name in RELEASED else paths.archives(config.scale.name, name)
    settings = {
        "dataset": name,
        "edition": edition,
        "archives": archives(config.folder / "datasets.csv", name, edition),
        "mirror": config.mirror,
    }
    return Request(settings, out, LockFile(paths.locks(edition)))
