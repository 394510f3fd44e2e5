"""The verb `hodor fetch NAME ...`: names, folders, archives that a person must download, processes that end early."""

import csv
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from hodor.cli import fetch as command
from hodor.cli.fetch import fetch_command
from hodor.cli.main import main
from hodor.config.datasets import RELEASED, SOURCES, Source
from hodor.config.loading import load
from hodor.data.checksums import LockFile
from hodor.data.progress import Progress
from hodor.errors import HodorError
from hodor.stamps import Stamps
from tests.data.hostile_server import hostile_server, zip_bytes
from tests.refused import refused


@pytest.fixture
def server():
    """A mirror with a small archive for every name of the table."""
    with hostile_server() as state:
        for dataset, names in SOURCES.items():
            for name in names:
                if name.endswith((".zip", ".pth")):
                    state.files[f"{dataset}/{name}"] = zip_bytes(("x.txt", f"{dataset}/{name}".encode() * 2000))
        yield state


@pytest.fixture
def place(tmp_path, root, monkeypatch):
    """A working directory with the configuration in it, the table without sizes and checksums of the real archives."""
    shutil.copytree(root / "config", tmp_path / "config")
    path = tmp_path / "config" / "datasets.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"size_bytes": "", "sha256": "", "md5": ""} for row in rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HODOR_MIRROR", raising=False)
    return tmp_path


def test_archives_go_where_the_workflow_looks(place, server, capsys, monkeypatch):
    monkeypatch.setattr(Progress, "EVERY_S", 0.01)
    server.pause = 0.02
    folders = {"davis": "data/paper/archives/davis", "stm-released": "data/weights/stm-released"}
    assert main(["fetch", *folders, "--scale", "paper", "--mirror", server.address]) == 0
    lock = json.loads((place / "config/locks/official.json").read_text())
    for dataset, folder in folders.items():
        listed = json.loads((place / folder / "archives.json").read_text())
        assert list(listed) == list(SOURCES[dataset])
        for name, record in listed.items():
            content = server.files[f"{dataset}/{name}"]
            assert (place / folder / name).read_bytes() == content
            expected = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            assert record == lock[f"{dataset}/{name}"] == expected
    printed = capsys.readouterr()
    assert "data/weights/stm-released/STM_weights.pth: " in printed.out and server.most == 2, "two from one host"
    assert all(f"{name}: 100 %" in printed.err for name in SOURCES["davis"]), "a line for each archive"
    running = [line for line in printed.err.splitlines() if line.endswith(" left")]
    assert running and all(line.count("%") == 1 and "/s, " in line for line in running), "whole lines"


def test_published_checksums_are_enforced(place, root, server):
    """The small archives are not the official ones, which the table knows by size, sha256 or md5."""
    shutil.copy(root / "config/datasets.csv", place / "config/datasets.csv")
    for dataset, message in (("davis2016", "md5 .* where 0cb3cf9c"), ("resnet-imagenet", "has .* bytes where")):
        with pytest.raises(HodorError, match=message):
            fetch_command([dataset], scale="paper", mirror=server.address)
        assert not list((place / "data/paper/archives" / dataset).glob("[!.]*"))
    assert not (place / "config/locks").exists()


def test_names_and_groups(root):
    paper, mini = (load(root / "config", {"scale": scale}) for scale in ("paper", "mini"))
    of_scale, weights = list(paper.scale.datasets), command._datasets(paper, ["weights"])
    assert command._datasets(paper, []) == of_scale
    assert set(command._datasets(paper, ["all"])) == {*of_scale, *RELEASED}
    assert set(weights) == {"swin-tiny-mask-rcnn-3x", "resnet-imagenet", *RELEASED}
    assert command._datasets(paper, ["duts", "weights", "duts"]) == ["duts", *weights]
    assert command._datasets(mini, ["weights"]) == list(RELEASED)
    for names in ([], ["coco"], ["stm-released", "davis"]):
        refused("scale mini generates its data.*--scale paper", command._datasets, mini, names)
    refused("'davos' is none of all, weights, coco,.*nearest: davis", command._datasets, paper, ["davos"])


def test_everything_available_is_fetched_before_a_person_is_asked(place, server, capsys):
    table = place / "config/datasets.csv"
    here = f"{server.address}/davis2016"
    table.write_text(table.read_text().replace("https://graphics.ethz.ch/Downloads/Data/Davis", here))
    assert main(["fetch", "youtube-vos", "davis2016", "hrsod", "--scale", "paper"]) == 1
    message = capsys.readouterr().err.partition("hodor fetch: error: ")[2]
    assert "2 faults, all other archives were fetched" in message and message.count("\n- ") == 2
    for text in ("train.zip and valid.zip", "https://youtube-vos.org/dataset/vos/", "data/paper/archives/youtube-vos/"):
        assert text in message
    assert "HRSOD.zip: in stcn-static; pack what the page leads to" in message
    assert (place / "data/paper/archives/davis2016/archives.json").exists()


def test_weights_are_fetched_where_an_address_works(place, server, capsys):
    """HODOR's are partly members of one zip. STCN's address is dead: the others come, and a file placed by hand is used."""
    table = place / "config/datasets.csv"
    text = re.sub(r"(-released,.*?)https://", rf"\1{server.address}/", table.read_text())
    table.write_text(text.replace("?dl=1", ""))
    files = {name: zip_bytes(("x", name.encode() * 100)) for name in ("static", "stm", "0999", "1000", "dense", "mac")}
    names = {"0999": "video_sparse/000999.pth", "1000": "video_sparse/001000.pth", "dense": "video_dense/7.pth"}
    members = [(f"work/checkpoints/{path}", files[name]) for name, path in names.items()]
    members += [("work/checkpoints/video_sparse/log.txt", b"x"), ("__MACOSX/video_sparse/._00001000.pth", files["mac"])]
    hodor = "omnomnom.vision.rwth-aachen.de/data/HODOR"
    server.files[f"{hodor}/checkpoints/static_image/250000.pth"] = files["static"]
    server.files[f"{hodor}/everything_zipped.zip"] = zip_bytes(*members)
    server.files["www.dropbox.com/s/mtfxdr93xc3q55i/STM_weights.pth"] = files["stm"]
    assert main(["fetch", "weights"]) == 1
    message = capsys.readouterr().err.partition("hodor fetch: error: ")[2]
    assert message.count("\n") == 1 and "releases/download/1.0/stcn_s0.pth: the server answered 404" in message
    assert "by hand as data/weights/stcn-released/stcn_s0.pth (its page: https://github.com/hkchengrex/STCN" in message
    weights = place / "data/weights"
    expected = {"hodor-released/static_image": "static", "hodor-released/video_sparse": "1000"}
    expected |= {"hodor-released/video_dense": "dense", "stm-released/STM_weights": "stm"}
    assert all((weights / f"{name}.pth").read_bytes() == files[file] for name, file in expected.items())
    asked = [path for _, path, _ in server.requests]
    assert asked.count(f"{hodor}/everything_zipped.zip") == 1
    (weights / "stcn-released/stcn_s0.pth").write_bytes(files["static"])
    assert main(["fetch", "weights"]) == 0
    assert "stcn_s0.pth: kept as it is" in capsys.readouterr().err
    assert len(server.requests) == len(asked) + 1 and (weights / "stcn-released/archives.json").is_file()


def test_waiting_for_a_person(place, capsys):
    folder = place / "data/paper/archives/youtube-vos"

    def bring():
        while not folder.is_dir():
            time.sleep(0.01)
        for name in ("train.zip", "valid.zip"):
            time.sleep(0.1)
            (folder / f"{name}.tmp").write_bytes(zip_bytes(("x.txt", b"content")))
            (folder / f"{name}.tmp").rename(folder / name)

    person = threading.Thread(target=bring)
    person.start()
    fetch_command(["youtube-vos"], scale="paper", wait=True, pause=0.05)
    person.join()
    assert (folder / "archives.json").exists() and capsys.readouterr().out.count("waiting for the files") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_ended_in_the_middle_continues_by_range(place, server, root, number):
    name = "davis2016/DAVIS-data.zip"
    server.files[name], server.pause = zip_bytes(("x.bin", bytes(range(256)) * 4000)), 0.02
    arguments = [sys.executable, "-m", "hodor", "fetch", "davis2016", "--scale", "paper", "--mirror", server.address]
    process = subprocess.Popen(
        arguments,
        cwd=place,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background of a shell, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = place / "data/paper/archives/davis2016/DAVIS-data.zip.part"
    while not (part.exists() and part.stat().st_size > 300_000):
        time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in errors and ("hodor fetch: interrupted" in errors) == (number == signal.SIGINT)
    there, server.pause = part.stat().st_size, 0.0
    fetch_command(["davis2016"], scale="paper", mirror=server.address)
    assert part.with_suffix("").read_bytes() == server.files[name]
    assert server.ranges()[-1] == f"bytes={there}-" and there > 0


def test_nothing_is_due_when_a_lock_is_written(root, place):
    """Neither a stamp nor a stage of dvc.yaml, which depends on the folder config, knows the file."""
    before = Stamps(load(place / "config", {"scale": "paper"}), root).contents
    source = Source("davis", "official", "DAVIS-2017-test-dev-480p.zip")
    LockFile(place / "config" / "locks" / "official.json").record(source, 1, "a" * 64)
    assert Stamps(load(place / "config", {"scale": "paper"}), root).contents == before
    assert "/config/locks/" in (root / ".dvcignore").read_text().splitlines()
