"""Several transfers at once: limits, failures, and room for all."""

import threading
import time
from collections import Counter, namedtuple

import pytest

from hodor.data import transfers
from hodor.errors import HodorError

Disk = namedtuple("Disk", "free")


class Watch:
    """Tasks that tell how many of them ran at once, in all and of each host."""

    def __init__(self):
        self.lock, self.running, self.most = threading.Lock(), Counter(), Counter()

    def task(self, host, seconds=0.05):
        def call():
            with self.lock:
                for key in (host, "all"):
                    self.running[key] += 1
                    self.most[key] = max(self.most[key], self.running[key])
            time.sleep(seconds)
            with self.lock:
                self.running[host] -= 1
                self.running["all"] -= 1
            return host

        return host, call


def test_few_from_one_host_and_some_in_all():
    watch = Watch()
    hosts = [name for name in "abcde" for _ in range(4)]
    assert transfers.run([watch.task(name) for name in hosts], threading.Event()) == hosts
    assert all(watch.most[name] == transfers.PER_HOST for name in "abcde")
    assert watch.most["all"] == transfers.AT_ONCE


def test_tasks_of_a_busy_host_do_not_keep_others_waiting():
    watch = Watch()
    start = time.monotonic()
    transfers.run([watch.task("slow", 0.2) for _ in range(6)] + [watch.task("b", 0.2)], threading.Event())
    assert time.monotonic() - start < 0.8, "three rounds of slow, b beside the first"
    assert watch.most["all"] == 3


def test_one_failure_leaves_the_others_running():
    def fails():
        raise HodorError("no such file")

    results = transfers.run([("a", fails), Watch().task("a"), ("b", lambda: 3)], threading.Event())
    assert str(results[0]) == "no such file" and results[1:] == ["a", 3]


def test_a_fault_of_the_program_is_no_result():
    with pytest.raises(ZeroDivisionError):
        transfers.run([("a", lambda: 1 / 0)], threading.Event())


def test_an_interruption_stops_the_tasks(monkeypatch):
    stop, ended = threading.Event(), threading.Event()

    def task():
        stop.wait(10)
        ended.set()

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(transfers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transfers.run([("a", task)] * 5, stop)
    assert stop.is_set()


def test_room_is_needed_for_the_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda _: Disk(1000))
    transfers.require_room([(tmp_path, "a.zip", 600), (tmp_path, "b.zip", 400)])
    with pytest.raises(HodorError, match=r"1\.0 kB are free, 1\.2 kB more are needed for a\.zip, b\.zip; make room"):
        transfers.require_room([(tmp_path, "a.zip", 600), (tmp_path, "b.zip", 601)])


def test_hosts():
    assert transfers.host("https://a.org:80/x/y.zip") == "a.org:80" and transfers.host("/data/mirror/x.zip") == ""


def test_sizes_of_servers_that_do_not_answer_are_unknown():
    assert transfers.remote_sizes(["http://127.0.0.1:9/x", "nonsense"], 1.0) == [None, None]
