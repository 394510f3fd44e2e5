"""`hodor fetch NAME ...` and fetching several data sets at once, from a local server that can misbehave."""

import csv
import hashlib
import io
import json
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from hodor.cli import fetch as module
from hodor.cli.fetch import fetch_command
from hodor.cli.main import main
from hodor.config.datasets import ARCHIVES, RELEASED, SOURCES
from hodor.data.fetch import fetch
from hodor.data.prepare import prepare
from hodor.errors import HodorError


def zipped(*members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, content, compression)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, body):
        world, name = self.server.world, self.path.lstrip("/")
        self.close_connection = True
        if name not in world.files:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, tag = world.files[name], f'"{hashlib.sha256(world.files[name]).hexdigest()}"'
        span = self.headers.get("Range") if self.headers.get("If-Range") == tag else None
        first = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        with world.lock:
            world.requests.append((self.command, name, first))
            world.running += body
            world.most = max(world.most, world.running)
        try:
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            for start in range(first, len(content) if body else 0, 20_000):
                if start + 20_000 >= len(content):
                    with world.lock:  # before the last bytes: after them the client may ask again at once
                        world.running -= 1
                self.wfile.write(content[start : start + 20_000])
                time.sleep(world.pause)
        except OSError:
            pass  # the client is gone


@pytest.fixture
def server():
    """A mirror with a little archive for every name of the table."""
    world = SimpleNamespace(lock=threading.Lock(), requests=[], running=0, most=0, pause=0.0)
    world.files = {
        f"{dataset}/{archive}": zipped(("x.txt", f"{dataset}/{archive}".encode() * 2000))
        for dataset, archives in SOURCES.items()
        for archive in archives
        if archive.endswith((".zip", ".pth"))
    }
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads, http.world = True, world
    http.handle_error = lambda *_: None  # a client that is killed is what a test does
    world.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield world
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def place(tmp_path, root, monkeypatch):
    """A working directory with the configuration in it."""
    shutil.copytree(root / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HODOR_MIRROR", raising=False)
    return tmp_path


def without_checksums(place):
    """Empties sizes and checksums of the table, which the little archives have not."""
    path = place / "config" / "datasets.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"size_bytes": "", "sha256": "", "md5": ""} for row in rows)


def test_archives_go_where_the_workflow_looks(place, server, capsys):
    without_checksums(place)
    assert main(["fetch", "davis", "davis2016", "stm-released", "--scale", "paper", "--mirror", server.address]) == 0
    lock = json.loads((place / "config/locks/official.json").read_text())
    for folder, dataset in [
        ("data/paper/archives/davis", "davis"),
        ("data/paper/archives/davis2016", "davis2016"),
        ("data/weights/stm-released", "stm-released"),
    ]:
        listed = json.loads((place / folder / "archives.json").read_text())
        assert list(listed) == list(SOURCES[dataset])
        for archive, record in listed.items():
            content = server.files[f"{dataset}/{archive}"]
            assert (place / folder / archive).read_bytes() == content
            assert (
                record
                == lock[f"{dataset}/{archive}"]
                == {
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
    printed = capsys.readouterr()
    assert "data/weights/stm-released/STM_weights.pth: " in printed.out
    assert all(f"{name}: 100 %" in printed.err for name in SOURCES["davis"]), "a line for each archive"
    # Again: nothing is asked of the server.
    server.requests.clear()
    assert main(["fetch", "davis", "--scale", "paper", "--mirror", server.address]) == 0
    assert server.requests == []


def test_several_archives_come_at_once_each_with_its_line(place, server, capsys, monkeypatch):
    from hodor.data.progress import Progress

    without_checksums(place)
    monkeypatch.setattr(Progress.__init__, "__defaults__", ("B", 0, 0.01))
    for name in ("coco/train2017.zip", "coco/val2017.zip"):
        server.files[name] = zipped(("x", bytes(200_000)))
    server.pause = 0.03
    fetch_command(["coco", "davis"], scale="paper", mirror=server.address)
    assert server.most == 2, "two from one host"
    lines = capsys.readouterr().err.splitlines()
    running = [line for line in lines if line.endswith(" left")]
    assert {line.partition(":")[0] for line in running} >= {"coco/train2017.zip", "coco/val2017.zip"}
    for line in running:
        assert "/s, " in line and " of " in line and line.count("%") == 1, "whole lines, though several print"


def test_published_checksums_are_enforced(place, server):
    """The little archives are not the official ones, which the table knows by size, sha256 or md5."""
    for dataset, what in (
        ("davis2016", "md5 .* where 0cb3cf9c"),
        ("resnet-imagenet", "the server offers .* bytes where"),
    ):
        with pytest.raises(HodorError, match=what):
            fetch_command([dataset], scale="paper", mirror=server.address)
        folder = place / "data/paper/archives" / dataset
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    assert not (place / "config/locks").exists()


def test_names_and_groups(root):
    from hodor.config.loading import load

    paper, mini = (load(root / "config", {"scale": scale}) for scale in ("paper", "mini"))
    of_scale = list(paper.scale.datasets)
    assert module._datasets(paper, []) == of_scale
    assert set(module._datasets(paper, ["all"])) == {*of_scale, *RELEASED}
    weights = module._datasets(paper, ["weights"])
    assert set(weights) == {"swin-tiny-mask-rcnn-3x", "resnet-imagenet", *RELEASED}
    assert module._datasets(paper, ["duts", "weights", "duts"]) == ["duts", *weights]
    assert module._datasets(mini, ["weights"]) == list(RELEASED)
    for names in ([], ["coco"], ["stm-released", "davis"]):
        with pytest.raises(HodorError, match="scale mini generates its data.*--scale paper"):
            module._datasets(mini, names)
    with pytest.raises(HodorError, match="'davos' is none of all, weights, coco,.*nearest: davis"):
        module._datasets(paper, ["davos"])
    assert set(ARCHIVES).isdisjoint(RELEASED)


def test_what_can_be_had_is_there_before_a_person_is_asked(place, server, capsys):
    """Drives and log-ins are said once, at the end too, and everything else has come."""
    without_checksums(place)
    text = (place / "config/datasets.csv").read_text()
    text = text.replace("https://graphics.ethz.ch/Downloads/Data/Davis", f"{server.address}/davis2016")
    (place / "config/datasets.csv").write_text(text)
    assert main(["fetch", "youtube-vos", "davis2016", "hodor-released", "--scale", "paper"]) == 1
    message = capsys.readouterr().err.partition("hodor fetch: error: ")[2]
    assert "2 faults, all others are there" in message and message.count("\n- ") == 2
    for part in ("train.zip and valid.zip", "https://youtube-vos.org/dataset/vos/", "data/paper/archives/youtube-vos/"):
        assert part in message
    assert "static_image.pth: static_image/250000.pth there" in message and "data/weights/hodor-released/" in message
    assert (place / "data/paper/archives/davis2016/archives.json").exists()
    for name in ("train.zip", "valid.zip"):
        (place / "data/paper/archives/youtube-vos" / name).write_bytes(zipped(("x", b"x")))
    assert main(["fetch", "youtube-vos", "--scale", "paper"]) == 0


def test_waiting_for_a_person(place, capsys):
    without_checksums(place)
    folder = place / "data/paper/archives/youtube-vos"

    def bring():
        while not folder.is_dir():
            time.sleep(0.01)
        for name in ("train.zip", "valid.zip"):
            time.sleep(0.1)
            (folder / f"{name}.tmp").write_bytes(zipped((name, b"x")))
            (folder / f"{name}.tmp").rename(folder / name)

    person = threading.Thread(target=bring)
    person.start()
    fetch_command(["youtube-vos"], scale="paper", wait=True, pause=0.05)
    person.join()
    assert (folder / "archives.json").exists()
    assert capsys.readouterr().out.count("waiting for the files") == 1


def test_room_for_all_is_asked_before_the_first_byte(place, server, monkeypatch):
    without_checksums(place)
    size = sum(len(content) for name, content in server.files.items() if name.startswith(("coco/", "davis/")))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(HodorError, match="are free, .* more are needed for train2017.zip, .*DAVIS-2017-test-dev"):
        fetch_command(["coco", "davis"], scale="paper", mirror=server.address)
    assert {command for command, _, _ in server.requests} == {"HEAD"}
    assert not list((place / "data").rglob("*.part"))


def start_and_wait_for_some(place, server, root):
    """A process that is in the middle of a slow download, and its part."""
    without_checksums(place)
    server.files["davis2016/DAVIS-data.zip"] = zipped(("x.bin", bytes(range(256)) * 4000))
    server.pause = 0.02
    command = [sys.executable, "-m", "hodor", "fetch", "davis2016", "--scale", "paper", "--mirror", server.address]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background of a shell, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = place / "data/paper/archives/davis2016/DAVIS-data.zip.part"
    while not (part.exists() and part.stat().st_size > 300_000):
        time.sleep(0.01)
        assert process.poll() is None
    return process, part


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_ended_in_the_middle_continues_by_range(place, server, root, number):
    process, part = start_and_wait_for_some(place, server, root)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in errors and ("hodor fetch: interrupted" in errors) == (number == signal.SIGINT)
    there, server.pause = part.stat().st_size, 0.0
    fetch_command(["davis2016"], scale="paper", mirror=server.address)
    assert part.with_suffix("").read_bytes() == server.files["davis2016/DAVIS-data.zip"]
    assert server.requests[-1] == ("GET", "davis2016/DAVIS-data.zip", there) and there > 0


def test_a_failing_archive_does_not_cost_the_others(place, server):
    without_checksums(place)
    del server.files["coco/val2017.zip"]
    with pytest.raises(HodorError, match=r"coco/val2017\.zip: the server answered 404"):
        fetch_command(["coco", "davis"], scale="paper", mirror=server.address)
    archives = place / "data/paper/archives"
    assert (archives / "davis/archives.json").exists() and not (archives / "coco/archives.json").exists()
    assert (archives / "coco/train2017.zip").exists()


def test_a_changed_file_of_a_publisher_is_one_error(place, server):
    without_checksums(place)
    fetch_command(["davis2016"], scale="paper", mirror=server.address)
    archive = place / "data/paper/archives/davis2016/DAVIS-data.zip"
    archive.unlink()
    server.files["davis2016/DAVIS-data.zip"] = zipped(("x.txt", b"another year"))
    with pytest.raises(HodorError, match="config/locks/official.json recorded it.*delete that entry") as caught:
        fetch_command(["davis2016"], scale="paper", mirror=server.address)
    assert "\n" not in str(caught.value) and not archive.exists()


def evil_link():
    info = zipfile.ZipInfo("DAVIS/link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, "/etc/passwd"


@pytest.mark.parametrize(
    "content, message",
    [
        (zipped(("../../evil", b"x")), "would be written outside the folder"),
        (zipped(evil_link()), "is a link or a device"),
        (zipped(("x", bytes(80_000_000)), compression=zipfile.ZIP_DEFLATED), "is it a bomb"),
    ],
    ids=["path traversal", "link", "bomb"],
)
def test_evil_archives_of_a_server_write_nothing(place, server, content, message):
    """They are archives like others to the download; the extraction refuses them before the first byte."""
    server.files["davis/DAVIS-2017-trainval-480p.zip"] = content
    settings = {"dataset": "davis", "edition": "subset", "mirror": server.address}
    stamp = {"settings": settings | {"archives": [{"archive": name} for name in ARCHIVES["davis"]]}}
    fetch(stamp, place / "archives")
    before = sorted(place.rglob("*"))
    with pytest.raises(HodorError, match=message):
        prepare(stamp, place / "archives", place / "data" / "davis", place / "data" / "davis.json")
    assert [path for path in sorted(place.rglob("*")) if path not in before and path.is_file()] == []
    assert not Path(place.parent / "evil").exists()


def test_out_belongs_to_a_stamp(place, capsys):
    assert main(["fetch", "--out", "x"]) == 1 and "--out belongs to --stamp" in capsys.readouterr().err


def test_real_archives_by_name(place, shared_data):
    """coco, coco-persons-small and davis from the mirror that they lie in; no frames of YouTube-VOS are there."""
    fetch_command(["coco", "coco-persons-small", "davis"], scale="subset", mirror=str(shared_data))
    lock = json.loads((place / "config/locks/subset.json").read_text())
    for dataset in ("coco", "coco-persons-small", "davis"):
        for archive in ARCHIVES[dataset]:
            fetched = place / "data/subset/archives" / dataset / archive
            assert fetched.read_bytes() == (shared_data / dataset / archive).read_bytes()
            assert lock[f"{dataset}/{archive}"]["size"] == fetched.stat().st_size
    with pytest.raises(HodorError, match=r"youtube-vos/train\.zip: the mirror has no such file \(train, valid in"):
        fetch_command(["youtube-vos"], scale="subset", mirror=str(shared_data))
