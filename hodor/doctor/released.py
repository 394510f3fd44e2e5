"""The authors' checkpoints in data/weights: are they the files that were fetched first?"""

from pathlib import Path

from hodor import paths
from hodor.config.datasets import RELEASED, Source
from hodor.config.loading import Config
from hodor.data.checksums import LockFile
from hodor.data.progress import format_bytes
from hodor.doctor.findings import Finding, Findings
from hodor.errors import HodorError
from hodor.provenance import sha256_file
from hodor.released import Released, load_released, locate

SUBJECT = "released weights"


def check_released(config: Config, folder: Path) -> Findings:
    """Whether each checkpoint of config/released.yaml that is there is the one that the lock records; which are not there.

    `folder`: working directory.
    """
    entries = load_released(config)
    absent = [entry.file for entry in entries.values() if locate(entry, folder) is None]
    for entry in entries.values():
        path = locate(entry, folder)
        if path is not None:
            yield _compared(entry, folder / path, LockFile(folder / paths.locks("official")))
    if absent:
        text = f"not there: {', '.join(absent)}; only those that are there are scored (hodor fetch weights)"
        yield Finding("ok", SUBJECT, text)


def _compared(entry: Released, path: Path, lock: LockFile) -> Finding:
    set_name = next((name for name, files in RELEASED.items() if entry.file in files), "")
    try:
        recorded, _ = lock.apply(Source(set_name, "official", entry.file))
        found = sha256_file(path)
    except HodorError as error:
        return Finding("wrong", SUBJECT, str(error), f"mend it, or rm {path} && hodor fetch weights")
    if recorded.sha256 is None:
        text = f"{path}, {format_bytes(path.stat().st_size)}, put there by hand: no checksum is recorded"
        return Finding("ok", SUBJECT, text)
    if recorded.sha256 != found:
        text = f"{path} is not the file that {lock.path} records (sha256)"
        mend = f"rm {path} && hodor fetch weights; or delete its entry in the lock if the file is the right one"
        return Finding("wrong", SUBJECT, text, mend)
    return Finding("ok", SUBJECT, f"{path}, checksum as recorded")
