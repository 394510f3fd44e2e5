"""The verb `fetch`: archives of a data set, from a mirror, from their official addresses, or generated.

Every archive arrives as `<name>.part` and gets its name when it is whole. `.fetched.json` beside the archives keeps
what is known of each (size, sha256, origin), so that a repeated fetch copies nothing that is there unchanged;
`archives.json`, the declared result, is written last.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from pydantic import ValidationError

from hodor.data.download import Limits, download, is_whole_zip
from hodor.data.options import GeneratedOptions
from hodor.data.progress import Progress, format_bytes
from hodor.data.sources import Source, from_settings
from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_json_atomic

RECORD = "archives.json"
_STATE = ".fetched.json"
_PATIENCE = Limits()


def fetch(stamp: dict, out: Path, *, limits: Limits = _PATIENCE) -> None:
    """Brings a data set's archives to `out` and writes `out/archives.json` = {archive: {"size", "sha256"}}.

    Args:
        stamp: `settings` holds `dataset`, `edition`, `archives` (list of `archive`, `address`, `size`, `sha256`,
            `log_in`, `terms`; empty for generated data), `mirror` (folder or http(s) address with
            `<dataset>/<archive>`, or None) and `generated` (GeneratedOptions as a dict, or None).
        out: folder for the archives, made where absent.
        limits: patience with servers.

    Raises:
        HodorError: an archive is nowhere to be had, is damaged, or is behind a log-in and not there yet.
    """
    settings, out = stamp["settings"], Path(out)
    sources = from_settings(settings)
    out.mkdir(parents=True, exist_ok=True)
    with _only_one(out):
        (out / RECORD).unlink(missing_ok=True)
        if settings["edition"] == "generated":
            known = _generate(sources, settings.get("generated"), out)
        else:
            mirror = settings.get("mirror")
            if not mirror:
                _ask_for_log_in(sources, out)
            known = {source.archive: _obtain(source, mirror, out, limits) for source in sources}
        write_json_atomic(out / RECORD, known)


def _obtain(source: Source, mirror: str | None, out: Path, limits: Limits) -> dict:
    """Brings one archive, or finds it there; returns its size and sha256."""
    target, state = out / source.archive, _read_state(out)
    origin = _origin(source, mirror)
    by_hand = mirror is None and source.log_in
    local = None if by_hand or _is_address(origin) else Path(origin)
    seen = _stat(local) if local else None
    before = state.get(source.archive, {})
    if target.is_file():
        record = {"size": target.stat().st_size, "sha256": sha256_file(target)}
        unchanged = (before.get("origin"), before.get("seen")) == (origin, seen)
        if unchanged and {key: before.get(key) for key in record} == record:
            _check(source, target, record)
            return record
        if by_hand or record["sha256"] == source.sha256:
            _check(source, target, record)
            return _remember(source, record, origin, seen, out)
        if unchanged:
            print(f"{target}: differs from what was fetched, fetching again", file=sys.stderr)
    if local:
        record = _copy(source, local, target)
    else:
        size, sha256 = download(origin, target, size=source.size, sha256=source.sha256, limits=limits)
        record = {"size": size, "sha256": sha256}
    return _remember(source, record, origin, seen, out)


def _origin(source: Source, mirror: str | None) -> str:
    """Address or path that the archive comes from; a mirror replaces every address."""
    if mirror:
        if "://" in mirror and not _is_address(mirror):
            raise HodorError(f"mirror {mirror}: must be a folder or start with http:// or https://")
        if _is_address(mirror):
            return f"{mirror.rstrip('/')}/{source.dataset}/{source.archive}"
        if not Path(mirror).expanduser().is_dir():
            raise HodorError(
                f"mirror {mirror}: no such folder; give the folder that holds {source.dataset}/{source.archive}"
            )
        path = Path(mirror).expanduser() / source.dataset / source.archive
        if not path.is_file():
            there = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
            raise HodorError(
                f"{path}: the mirror has no such file ({there or 'nothing'} in {path.parent}); put the archive there"
            )
        return str(path)
    if source.address is None:
        raise HodorError(
            f"{source.archive} of {source.dataset}: edition {source.edition} has no address; give "
            f"mirror=FOLDER with FOLDER/{source.dataset}/{source.archive}"
        )
    return source.address


def _ask_for_log_in(sources: list[Source], out: Path) -> None:
    """HodorError with the whole instruction if archives behind a log-in are not there."""
    absent = [source for source in sources if source.log_in and not (out / source.archive).is_file()]
    if absent:
        first = absent[0]
        names = " and ".join(source.archive for source in absent)
        raise HodorError(
            f"{first.dataset} needs a log-in or a browser: download {names} from {first.address} after accepting the terms "
            f"({first.terms}), put them into {out}/ under these names and start again; or keep them in a mirror as "
            f"FOLDER/{first.dataset}/{first.archive} and give mirror=FOLDER"
        )


def _generate(sources: list[Source], options: dict | None, out: Path) -> dict[str, dict]:
    """Generates the archives; the generator may add some that no official edition has (truth of hidden splits)."""
    from hodor.data.generated import generate

    try:
        generated = GeneratedOptions(**(options or {}))
    except ValidationError as error:
        raise HodorError(f"generated data: wrong options ({error})") from error
    # A killed generator leaves its half archives in a folder that the next one clears.
    fresh = out / ".generating"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        generate(sources[0].dataset, generated, fresh)
        made = {path.name for path in fresh.glob("*.zip")}
        missing = [source.archive for source in sources if source.archive not in made]
        if missing:
            raise HodorError(
                f"{out / missing[0]}: the generator wrote no such archive; its layout and the table disagree"
            )
        for name in made:
            os.replace(fresh / name, out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {name: {"size": (out / name).stat().st_size, "sha256": sha256_file(out / name)} for name in sorted(made)}


def _copy(source: Source, origin: Path, target: Path) -> dict:
    """Copies an archive of a mirror; returns its size and sha256, taken from the bytes that were written."""
    part = target.with_name(target.name + ".part")
    before, digest = _stat(origin), hashlib.sha256()
    free = shutil.disk_usage(target.parent).free
    if before[0] > free:
        raise HodorError(
            f"{target.parent}: {format_bytes(free)} are free, {format_bytes(before[0])} are needed; make room"
        )
    progress = Progress(target.name, before[0])
    try:
        with open(origin, "rb") as reader, open(part, "wb") as writer:
            while block := reader.read(1 << 20):
                writer.write(block)
                digest.update(block)
                progress.add(len(block))
            writer.flush()
            os.fsync(writer.fileno())
        if _stat(origin) != before or progress.count != before[0]:
            raise HodorError(f"{origin}: changed while it was copied; start again when it is whole")
        record = {"size": before[0], "sha256": digest.hexdigest()}
        _check(source, part, record, name=origin)
        os.replace(part, target)
    except OSError as error:
        raise HodorError(f"{origin}: cannot be copied to {target} ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    progress.close()
    return record


def _check(source: Source, path: Path, record: dict, name: Path | None = None) -> None:
    """HodorError if a file that came by hand or from a folder is not the expected archive.

    Args:
        path: the file, record: its size and sha256.
        name: what the message calls it, `path` where absent.
    """
    for what, expected in (("size", source.size), ("sha256", source.sha256)):
        if expected is not None and record[what] != expected:
            raise HodorError(
                f"{name or path}: {what} {record[what]} where {expected} is expected for the {source.edition} "
                "archive; replace the file"
            )
    if source.archive.endswith(".zip") and not is_whole_zip(path):
        raise HodorError(f"{name or path}: truncated or no zip archive; replace it by the whole archive")


def _remember(source: Source, record: dict, origin: str, seen: list[int] | None, out: Path) -> dict:
    state = _read_state(out) | {source.archive: record | {"origin": origin, "seen": seen}}
    write_json_atomic(out / _STATE, state)
    return record


def _read_state(out: Path) -> dict:
    try:
        state = json.loads((out / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing known: the archives are fetched again
    return state if isinstance(state, dict) else {}


def _stat(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    return [status.st_size, status.st_mtime_ns]


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


@contextlib.contextmanager
def _only_one(out: Path):
    """Keeps a second fetch into the same folder out: two would write into the same part."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HodorError(f"{out}: another fetch writes there; wait for its end") from error
        yield
