"""Reading and writing original checkpoint files. Reading runs no code of the file, whatever it holds."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.original.format import Entries

ENDINGS = (".pth", ".pt", ".pkl", ".bin")

_WRAPPERS = ("model", "state_dict", "network")


def read_checkpoint(path: Path) -> Entries:
    """The entries of a checkpoint of tensors, the release's wrapper taken off.

    Raises:
        HodorError: the file is missing, empty, damaged, no checkpoint, or holds objects that only running code of the
            file could make.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such checkpoint; check the path") from None
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    # A damaged file makes the unpickler fail in as many ways as there are kinds of damage.
    except Exception as error:
        raise HodorError(f"{path}: {_told(path, error)}") from error
    return _unwrap(content, path)


def write_checkpoint(path: Path, entries: Entries, wrapper: str | None) -> None:
    """Writes original entries, below the key `wrapper` where there is one, atomically.

    Raises:
        HodorError: the disk is full or the folder cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in entries.items()}
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            torch.save({wrapper: plain} if wrapper else plain, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
        temporary.unlink(missing_ok=True)
        raise HodorError(f"{path}: could not write the checkpoint ({error}); free space or mend the folder") from error


def _told(path: Path, error: Exception) -> str:
    """What a failed reading says to a person, in one line."""
    if path.stat().st_size == 0:
        return "an empty file, no checkpoint; fetch it again"
    # The unpickler of tensors names what it refuses, or says that something is no plain list or dict.
    if found := re.search(r"GLOBAL ([\w.]+)|(Can only) ", str(error)):
        return (
            f"holds more than tensors ({found[1] or 'an object'}), which only running code of the file could make; "
            "none of it was run. Take a file of tensors alone"
        )
    return "damaged, truncated or no checkpoint of PyTorch; fetch it again"


def _unwrap(content: Any, path: Path) -> Entries:
    """The entries: the content itself, or what lies under the key of a release."""
    if isinstance(content, Mapping) and not _is_entries(content):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not _is_entries(content):
        raise HodorError(
            f"{path}: no checkpoint of named tensors, neither by itself nor under {', '.join(_WRAPPERS)}; "
            f"it holds {_content(content)}"
        )
    return {name: value.detach() for name, value in content.items()}


def _is_entries(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _content(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"one {type(content).__name__}"
    return f"the keys {', '.join(sorted(map(str, content))[:6])}" if content else "nothing"
