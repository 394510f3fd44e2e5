"""Several transfers at once: few from one host, some in all, and room for the whole sum before the first byte."""

import http.client
import os
import shutil
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from hodor.data.progress import format_bytes
from hodor.errors import HodorError

Result = TypeVar("Result")

PER_HOST = 2
"""Archives at once from one host, or from disk."""

AT_ONCE = 6
"""Archives at once in all."""


def host(origin: str) -> str:
    """What a limit per host counts by: the host of an address, "" for a path."""
    return urlsplit(origin).netloc if "://" in origin else ""


def run(tasks: Sequence[tuple[str, Callable[[], Result]]], stop: threading.Event) -> list[Result | HodorError]:
    """Runs tasks in threads; one that fails leaves the others running, for what they bring is not lost.

    Args:
        tasks: host and call of each.
        stop: set when this call is interrupted; the tasks must then end soon.

    Returns:
        What each task returned, or its HodorError, in the order of the tasks.

    Raises:
        Any other error of a task, after all have ended.
    """
    slots = threading.BoundedSemaphore(AT_ONCE)

    def limited(task: Callable[[], Result]) -> Result | HodorError:
        with slots:
            try:
                return task()
            except HodorError as error:
                return error

    # A pool for each host: tasks that wait for a busy host must not keep others from an idle one.
    pools = {name: ThreadPoolExecutor(PER_HOST) for name in dict.fromkeys(name for name, _ in tasks)}
    try:
        futures = [pools[name].submit(limited, task) for name, task in tasks]
        wait(futures)
    except BaseException:
        stop.set()
        raise
    finally:
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def require_room(needed: Sequence[tuple[Path, str, int]]) -> None:
    """HodorError if files do not fit beside each other.

    Args:
        needed: folder (which exists), name and missing bytes of each file.
    """
    by_device = defaultdict(list)
    for folder, name, size in needed:
        by_device[os.stat(folder).st_dev].append((folder, name, size))
    for files in by_device.values():
        total, free = sum(size for _, _, size in files), shutil.disk_usage(files[0][0]).free
        if total > free:
            names = ", ".join(name for _, name, _ in files)
            raise HodorError(
                f"{files[0][0]}: {format_bytes(free)} are free, {format_bytes(total)} more are needed for {names}; "
                "make room"
            )


def remote_sizes(addresses: Sequence[str], timeout: float) -> list[int | None]:
    """Length in bytes that each server announces; None where it does not, or not within `timeout` seconds."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda address: _remote_size(address, timeout), addresses))


def _remote_size(address: str, timeout: float) -> int | None:
    headers = {"User-Agent": "hodor", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(address, headers=headers, method="HEAD")
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length")
            page = "html" in response.headers.get_content_type()
    except (OSError, ValueError, http.client.HTTPException):
        return None  # the download itself will tell what is wrong
    return int(length) if length and length.isdecimal() and not page else None
