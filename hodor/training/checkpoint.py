"""Checkpoints from which an interrupted run resumes: written atomically, each with a file of its checksum."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from hodor.errors import HodorError
from hodor.provenance import sha256_file, write_text_atomic


class Checkpoints:
    """The checkpoints of one run: `step-<step>.pt` and `step-<step>.sha256` in a folder.

    Args:
        folder: where they are stored.
        identity: digest of the run's settings, recipe versions and inputs; checkpoints of another identity are ignored.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps and remove all but the newest two checkpoints.

        Raises:
            HodorError: the disk is full or the folder cannot be written; earlier checkpoints are kept.
        """
        path = self.folder / f"step-{step:08d}.pt"
        temporary = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"identity": self.identity, "step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            # The checksum is written first, because a checkpoint without one counts as damaged.
            write_text_atomic(_checksum(path), f"{sha256_file(temporary)}  {path.name}\n")
            temporary.replace(path)
        except (OSError, RuntimeError, HodorError) as error:  # torch wraps a failed write in a RuntimeError
            temporary.unlink(missing_ok=True)
            _checksum(path).unlink(missing_ok=True)
            raise HodorError(
                f"{path}: could not write the checkpoint ({error}); free space or make the folder writable, then run the "
                "same command again: it resumes from the checkpoint before"
            ) from error
        for old in self._files()[2:]:  # a second one, in case that the newest turns out to be damaged
            _remove(old)
        return path

    def load(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint of this run, or None; remove newer files, with a line each on stderr."""
        for path in self._files():
            state, fault = self._read(path)
            if not fault:
                return state
            print(f"{path}: {fault}; removed", file=sys.stderr)
            _remove(path)
        return None

    def newest(self) -> Path | None:
        """Return the newest checkpoint file without reading it."""
        return next(iter(self._files()), None)

    def _read(self, path: Path) -> tuple[dict[str, Any] | None, str]:
        """Return the state in a file, or its fault."""
        try:
            if _checksum(path).is_file() and sha256_file(path) != _checksum(path).read_text().split()[0]:
                return None, "damaged checkpoint (its checksum differs)"
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["identity"] != self.identity:
                return None, "checkpoint of other settings, recipe versions or data"
            return state, "" if _checksum(path).is_file() else "checkpoint without its checksum file"
        except Exception as error:  # the unpickler raises almost any exception on damaged files
            return None, f"damaged checkpoint ({type(error).__name__})"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    _checksum(path).unlink(missing_ok=True)
