"""Checkpoints that a killed run continues from: written atomically, the newest whole one wins."""

import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from hodor.errors import HodorError

# One more than the newest, in case that one turns out to be broken.
KEPT = 2


class Checkpoints:
    """The checkpoints of one run, `step-<step>.pt` in a folder.

    `identity` says what the run is (a digest of its settings and inputs); checkpoints of another identity are ignored
    and removed, so that changed settings never continue old weights.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps and remove all but the newest two.

        Raises:
            HodorError: the disk is full or the folder cannot be written; earlier checkpoints stay.
        """
        path = self.folder / f"step-{step:08d}.pt"
        temporary = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"identity": self.identity, "step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
            temporary.unlink(missing_ok=True)
            raise HodorError(
                f"{path}: could not write the checkpoint ({error}); free space or mend the folder, then run the same "
                "command again: it continues from the checkpoint before"
            ) from error
        for old in self._files()[KEPT:]:
            old.unlink()
        return path

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint of this run, or None. Broken and foreign ones are removed, and said so."""
        for path in self._files():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                foreign = state["identity"] != self.identity
            except (
                OSError,
                RuntimeError,
                EOFError,
                KeyError,
                TypeError,
                pickle.UnpicklingError,
                zipfile.BadZipFile,
            ):
                print(f"{path}: broken checkpoint, taking the one before", file=sys.stderr)
                path.unlink()
                continue
            if not foreign:
                return state
            print(f"{path}: of other settings or data, starting anew", file=sys.stderr)
            path.unlink()
        return None

    def newest(self) -> Path | None:
        """The newest checkpoint file, unread."""
        files = self._files()
        return files[0] if files else None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)
