"""Parts of a long measurement: each in a process of its own, within a limit, and resumable line by line."""

import argparse
import gc
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from typing import Any

import cv2
import torch

from hodor.errors import HodorError, Stopped
from hodor.provenance import commit

GRACE_S = 15  # for a training to finish its step and to write a checkpoint
Items = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Name of a line of a part's table, and the function that measures it."""


def work(pipe: Connection, part: Callable[..., Items], options: argparse.Namespace, done: set[str]) -> None:
    """Measure the items of a part that are not done; send the line of each, or with None why there is none."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for item, measure in part(options):
            if item in done:
                continue
            began = time.monotonic()
            try:
                line = measure()
            except Stopped as stop:
                pipe.send((item, {"unfinished": str(stop)}))
                return
            except Exception as error:
                traceback.print_exc()
                line = {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}
            line = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
            pipe.send((item, line | {"seconds": round(time.monotonic() - began, 1)}))
            gc.collect()  # the next one needs the memory
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
    except HodorError as error:
        pipe.send((None, f"not run: {error}"))


def run_part(
    name: str,
    part: Callable[[argparse.Namespace], Items],
    entry: dict[str, Any],
    options: argparse.Namespace,
    seconds: float,
    save: Callable[[], None],
) -> None:
    """Run what is unfinished of a part.

    Args:
        name: of the part, for messages.
        part: yields its items, given the options.
        entry: the part in the record: `results`, the line of each item, grows, and `status` is set at the end.
        options: of the script.
        seconds: limit of the part.
        save: called after every item, when the entry has its line.
    """
    results, made_by, reason, ended = entry["results"], commit()[:7], "", False
    done = {item for item, line in results.items() if not {"error", "unfinished"} & line.keys()}
    ours, theirs = Pipe(duplex=False)
    # Forked, because this process has imported torch but used neither a GPU nor, from here on, threads of OpenCV, for which
    # a fork would wait forever.
    cv2.setNumThreads(1)
    child = get_context("fork").Process(target=work, args=(theirs, part, options, done))
    child.start()
    theirs.close()
    end = time.monotonic() + seconds
    try:
        while ours.poll(max(0.0, end - time.monotonic())) or not ended:
            if time.monotonic() >= end and not ended:
                child.terminate()  # a training writes a checkpoint first
                end, ended = time.monotonic() + GRACE_S, True
                continue
            item, line = ours.recv()
            if item is None:
                reason = line
                continue
            results[item] = line | {"commit": made_by}
            print(f"{name}: {item}: {line}", flush=True)
            save()
    except EOFError:
        pass  # it has ended
    finally:
        child.join(1)
        child.kill()
        child.join()
    failed = sum("error" in line for line in results.values())
    if ended:
        entry["status"] = f"unfinished after {seconds:.0f} s"
    elif child.exitcode or failed:
        entry["status"] = f"error: {failed} of {len(results)} lines, exit status {child.exitcode}"
    else:
        entry["status"] = reason or "done"
    save()
