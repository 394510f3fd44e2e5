"""Few large files instead of many small ones: records of bytes one after the other in `shard-00000.bin`, ...

A record is known by its place: shard, offset, length and CRC-32. Records are read with one system call each (`pread`)
and never mapped into memory: what is cached belongs to the system, a process holds one record at a time, and worker
processes may share the open files.
"""

import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hodor.errors import HodorError

SHARD_BYTES = 1 << 30
"""Largest size of a shard, unless a single record is larger."""

Place = tuple[int, int, int, int]
"""Shard, offset and length in bytes, CRC-32."""


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.bin"


class ShardWriter:
    """Appends records to the shards of a folder, which must hold none yet. `total`: bytes so far."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self.total = 0
        self._number, self._offset = -1, 0
        self._file: BinaryIO | None = None

    def add(self, record: bytes | np.ndarray) -> Place:
        """Writes one record; returns its place. OSError where the disk is full."""
        view = memoryview(record).cast("B")
        if self._file is None or (self._offset and self._offset + len(view) > self.limit):
            self.close()
            self._number, self._offset = self._number + 1, 0
            self._file = open(self.folder / shard_name(self._number), "xb")
        place = (self._number, self._offset, len(view), zlib.crc32(view))
        self._file.write(view)
        self._offset += len(view)
        self.total += len(view)
        return place

    def close(self) -> None:
        """Brings what was written to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


class ShardReader:
    """Reads records of a folder of shards. Works in forked processes, and is opened anew where it was pickled to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, int] = {}

    def read(self, place: np.ndarray | Place) -> np.ndarray:
        """The bytes of a record, uint8 (length,), owned by the caller.

        Raises:
            HodorError: the shard is missing or shorter, or the record is not what was written.
        """
        shard, offset, length, crc = (int(value) for value in place)
        record = np.empty(length, np.uint8)
        path = self.folder / shard_name(shard)
        try:
            got, view = 0, memoryview(record)
            while got < length:
                count = os.preadv(self._descriptor(shard, path), [view[got:]], offset + got)
                if count == 0:
                    raise HodorError(f"{path}: ends before byte {offset + length}; pack the data set again")
                got += count
        except OSError as error:
            raise HodorError(f"{path}: cannot be read ({error.strerror}); pack the data set again") from error
        if zlib.crc32(record) != crc:
            raise HodorError(f"{path}: damaged at byte {offset} (wrong checksum); pack the data set again")
        return record

    def _descriptor(self, shard: int, path: Path) -> int:
        if shard not in self._open:
            self._open[shard] = os.open(path, os.O_RDONLY)
        return self._open[shard]

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "_open": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)
