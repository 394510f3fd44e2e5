"""Read and write original checkpoint files; reading never runs code from the file."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.checkpoints.formats import Entries

ENDINGS = (".pth", ".pt", ".pkl", ".bin")

_WRAPPERS = ("model", "state_dict", "network")


def read_checkpoint(path: Path) -> Entries:
    """Read the entries of a checkpoint of tensors, without the release's wrapper.

    Raises:
        HodorError: the file is missing, empty, damaged, no checkpoint, or holds objects other than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise HodorError(f"{path}: no such checkpoint; check the path") from None
    except OSError as error:
        raise HodorError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the unpickler raises almost any exception on damaged files
        raise HodorError(f"{path}: {_fault(path, error)}") from error
    return _unwrap(content, path)


def write_checkpoint(path: Path, entries: Entries, wrapper: str | None) -> None:
    """Write original entries, under the key `wrapper` if there is one, atomically.

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
        raise HodorError(f"{path}: cannot write the checkpoint ({error}); check free space and permissions") from error


def _fault(path: Path, error: Exception) -> str:
    """Explain a failed read in one line."""
    if path.stat().st_size == 0:
        return "an empty file; download it again"
    # The error of torch names the refused object, or reports that something is no plain list or dict.
    if found := re.search(r"GLOBAL ([\w.]+)|(Can only) ", str(error)):
        return (
            f"holds more than tensors ({found[1] or 'an object'}), which would need code from the file; none was run. "
            "Use a file of tensors only"
        )
    return "damaged, truncated or no PyTorch checkpoint; download it again"


def _unwrap(content: Any, path: Path) -> Entries:
    """Return the entries: the content itself, or the value of a release's wrapper key."""
    if isinstance(content, Mapping) and not _is_entries(content):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not _is_entries(content):
        raise HodorError(
            f"{path}: no named tensors, neither at the top nor under {', '.join(_WRAPPERS)} (it holds {_content(content)}); "
            "use a released checkpoint"
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
