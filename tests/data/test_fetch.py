"""The verb `fetch`: from folders, from servers, by hand, generated; `hodor fetch NAME ...`; recorded checksums."""

import csv
import fcntl
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from hodor.cli import fetch as command
from hodor.cli.fetch import fetch_command
from hodor.cli.main import main
from hodor.config.datasets import ARCHIVES, RELEASED, SOURCES, Source, archives
from hodor.config.loading import load
from hodor.data import fetch as module
from hodor.data import synthetic
from hodor.data.checksums import LockFile
from hodor.data.download import Limits
from hodor.data.fetch import fetch
from hodor.data.progress import Progress
from hodor.errors import HodorError
from hodor.stamps import Stamps
from tests.data.hostile_server import hostile_server, zip_bytes

SET = "coco-persons-small"
NAMES = ARCHIVES[SET]
LIMITS = Limits(attempts=2, first_wait=0.01, longest_wait=0.05, timeout=1)


def write_zip(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_bytes(("x.txt", content)))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(mirror=None, dataset=SET, edition="subset", **changes):
    """The stamp of a fetch; `changes` are of its first archive."""
    entries = [{"archive": name} for name in ARCHIVES[dataset]]
    entries[0] |= changes
    mirror = mirror and str(mirror)
    return {"settings": {"dataset": dataset, "edition": edition, "mirror": mirror, "archives": entries}}


@pytest.fixture
def mirror(tmp_path):
    for name in NAMES:
        write_zip(tmp_path / "mirror" / SET / name, name.encode())
    return tmp_path / "mirror"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "archives"


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "config" / "locks" / "subset.json"


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


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# From a folder


def test_copies_from_a_folder_and_records(mirror, out, lock, monkeypatch):
    monkeypatch.chdir(mirror.parent)
    first = mirror / SET / NAMES[0]
    fetch(stamp("mirror", size=first.stat().st_size, sha256=sha256(first)), out, lock)
    assert visible(out) == sorted([*NAMES, "archives.json"])
    record = json.loads((out / "archives.json").read_text())
    for name in NAMES:
        path = mirror / SET / name
        assert (out / name).read_bytes() == path.read_bytes()
        assert record[name] == {"size": path.stat().st_size, "sha256": sha256(path)}
    assert json.loads(lock.read_text()) == {f"{SET}/{NAMES[1]}": record[NAMES[1]]}, "published ones are not recorded"


def test_second_fetch_copies_nothing(mirror, out, lock, capsys):
    fetch(stamp(mirror), out, lock)
    before = {name: (out / name).stat().st_ino for name in NAMES}
    record = (out / "archives.json").read_bytes()
    (out / "archives.json").unlink()  # the workflow deletes what a rule declares
    fetch(stamp(), out, lock)  # no mirror, no address, and none is needed
    assert {name: (out / name).stat().st_ino for name in NAMES} == before
    assert (out / "archives.json").read_bytes() == record
    original = (out / NAMES[0]).read_bytes()
    (out / NAMES[0]).write_bytes(original[:-10] + bytes(10))
    fetch(stamp(mirror), out, lock)
    assert (out / NAMES[0]).read_bytes() == original
    assert f"{NAMES[0]}: sha256" in capsys.readouterr().err
    write_zip(mirror / SET / NAMES[0], b"other content")
    fetch(stamp(mirror), out)  # without any checksum the mirror decides
    assert (out / NAMES[0]).read_bytes() == (mirror / SET / NAMES[0]).read_bytes()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"size": 5}, r"size \d+ where 5 is expected"),
        ({"md5": "0" * 32}, r"md5 [0-9a-f]{32} where 0{32} is expected"),
        (b"PK\3\4 cut", "truncated or damaged"),
        (b"<html>", "holds a web page where a .zip file is expected"),
        (b"", "holds nothing where"),
    ],
)
def test_wrong_archive_in_the_mirror_gets_no_name(mirror, out, lock, change, message):
    if isinstance(change, bytes):
        (mirror / SET / NAMES[0]).write_bytes(change)
        change = {}
    with pytest.raises(HodorError, match=f"{mirror}/{SET}/{NAMES[0]}: {message}.*replace the file"):
        fetch(stamp(mirror, **change), out, lock)
    assert visible(out) == [NAMES[1]], "the other archive came and stays; nothing is listed"
    assert list(json.loads(lock.read_text())) == [f"{SET}/{NAMES[1]}"], "no wrong file is recorded"


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("{mirror}/gone", f"no such folder; give the folder that holds {SET}/{NAMES[0]}"),
        ("{mirror}/other", rf"{NAMES[0]}: the mirror has no such file \(a\\x1b\[2Jb, val\.zip in"),
        ("ftp://x", "mirror ftp://x: must be a folder or start with http"),
        ("a\0b", r"mirror a\\x00b: must be a folder"),
        ("~nouser/x", "mirror ~nouser/x: "),
        ("http://a\0b", "not an address|gave up"),
        (None, "edition subset has no address; give mirror=FOLDER with"),
    ],
)
def test_wrong_mirror_is_one_line_for_each_archive(mirror, out, wrong, message):
    for name in ("val.zip", "a\x1b[2Jb"):
        write_zip(mirror / "other" / SET / name)
    with pytest.raises(HodorError, match=message) as caught:
        fetch(stamp(wrong and wrong.format(mirror=mirror)), out, limits=LIMITS)
    assert str(caught.value).replace("\n", "").isprintable() and not visible(out)


def test_two_fetches_at_once_are_refused(mirror, out):
    out.mkdir(parents=True)
    with open(out / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HodorError, match="another fetch writes there"):
            fetch(stamp(mirror), out)
    fetch(stamp(mirror), out)


# By hand, and generated


def test_log_in_reports_what_to_do_and_continues_when_done(out, root, lock):
    entries = archives(root / "config" / "datasets.csv", "youtube-vos", "official")
    wanted = {"settings": {"dataset": "youtube-vos", "edition": "official", "mirror": None, "archives": entries}}
    with pytest.raises(HodorError) as caught:
        fetch(wanted, out, lock)
    for text in ("train.zip and valid.zip", "https://youtube-vos.org/", str(out), "FOLDER/youtube-vos/train.zip"):
        assert text in str(caught.value)
    write_zip(out / "train.zip")
    with pytest.raises(HodorError, match="download valid.zip from"):
        fetch(wanted, out, lock)
    (out / "valid.zip").write_bytes(b'{"error": "log in"}')
    with pytest.raises(HodorError, match=r"valid\.zip: holds JSON where a \.zip file is expected; replace"):
        fetch(wanted, out, lock)
    assert list(json.loads(lock.read_text())) == ["youtube-vos/train.zip"]
    write_zip(out / "valid.zip")
    for _ in range(2):
        fetch(wanted, out, lock)
    assert set(json.loads((out / "archives.json").read_text())) == {"train.zip", "valid.zip"}
    write_zip(out / "valid.zip", b"another year")
    with pytest.raises(HodorError, match=r"valid\.zip: (size|sha256) .* is expected.*subset\.json recorded it"):
        fetch(wanted, out, lock)


def test_generated_archives_are_recorded_and_half_ones_are_not(out, monkeypatch):
    asked = []

    def generate(dataset, options, folder):
        asked.append((dataset, options.seed))
        for name in (*ARCHIVES[dataset], "valid_truth.zip"):
            write_zip(folder / name)

    def fails(dataset, options, folder):
        write_zip(folder / "train.zip", b"half")
        raise HodorError("no room")

    wanted = {"settings": {"dataset": "youtube-vos", "edition": "generated", "archives": [], "generated": {"seed": 3}}}
    monkeypatch.setattr(synthetic, "generate", generate)
    fetch(wanted, out)
    assert asked == [("youtube-vos", 3)]
    assert set(json.loads((out / "archives.json").read_text())) == {"train.zip", "valid.zip", "valid_truth.zip"}
    content = (out / "train.zip").read_bytes()
    monkeypatch.setattr(synthetic, "generate", fails)
    with pytest.raises(HodorError, match="no room"):
        fetch(wanted, out)
    assert (out / "train.zip").read_bytes() == content and not (out / ".generating").exists()
    wanted["settings"]["generated"] = {"sead": 3}
    with pytest.raises(HodorError, match="sead"):
        fetch(wanted, out)


# Checksums that nobody publishes


def test_first_fetch_records_checksums_and_later_ones_enforce_them(mirror, out, lock):
    fetch(stamp(mirror), out, lock=lock)
    first = lock.read_bytes()
    record = json.loads((out / "archives.json").read_text())
    assert json.loads(first) == {f"{SET}/{name}": record[name] for name in NAMES}
    shutil.rmtree(out)  # the lock outlives the archives
    fetch(stamp(mirror), out, lock=lock)
    assert lock.read_bytes() == first
    (out / NAMES[0]).unlink()
    write_zip(mirror / SET / NAMES[0], b"other content")
    with pytest.raises(HodorError, match=f"{NAMES[0]}.*{lock} recorded it.*delete that entry") as caught:
        fetch(stamp(mirror), out, lock=lock)
    assert "\n" not in str(caught.value) and NAMES[0] not in visible(out) and lock.read_bytes() == first
    # As the message says: without its entry the new archive is the right one.
    lock.write_text(json.dumps({key: value for key, value in json.loads(first).items() if not key.endswith(NAMES[0])}))
    fetch(stamp(mirror), out, lock=lock)
    assert (out / NAMES[0]).read_bytes() == (mirror / SET / NAMES[0]).read_bytes()


@pytest.mark.parametrize(
    "content", ["[]", '{"a/b": {"size": 1}}', '{"a/b": {"size": 1, "sha256": "zz"}}', "{", "[" * 100_000]
)
def test_broken_lock_is_one_error(mirror, out, lock, content):
    lock.parent.mkdir(parents=True)
    lock.write_text(content)
    with pytest.raises(HodorError, match=r"subset\.json: not a record.*restore it from git"):
        fetch(stamp(mirror), out, lock=lock)
    assert lock.read_text() == content


def test_records_of_others_stay_and_the_first_counts(lock):
    sources = [Source("davis", "official", f"{i:02d}.zip") for i in range(30)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: LockFile(lock).record(sources[i], i, "a" * 64), range(30)))
    LockFile(lock).record(sources[3], 99, "b" * 64)
    assert list(json.loads(lock.read_text())) == [f"davis/{i:02d}.zip" for i in range(30)]
    assert LockFile(lock).apply(sources[3])[0].size == 3
    published = Source("davis", "official", "03.zip", size=7, sha256="c" * 64)
    assert LockFile(lock).apply(published) == (published, "")


def test_nothing_is_due_when_a_lock_is_written(root, place):
    """Neither a stamp nor a stage of dvc.yaml, which depends on the folder config, knows the file."""
    before = Stamps(load(place / "config", {"scale": "paper"}), root).contents
    source = Source("davis", "official", "DAVIS-2017-test-dev-480p.zip")
    LockFile(place / "config" / "locks" / "official.json").record(source, 1, "a" * 64)
    assert Stamps(load(place / "config", {"scale": "paper"}), root).contents == before
    assert "/config/locks/" in (root / ".dvcignore").read_text().splitlines()


# Several at once


def test_few_from_one_host_and_some_in_all():
    guard, running, most = threading.Lock(), Counter(), Counter()

    def task(host):
        with guard:
            running.update([host, "all"])
            for key in (host, "all"):
                most[key] = max(most[key], running[key])
        time.sleep(0.05)
        with guard:
            running.subtract([host, "all"])
        return host

    hosts = ["a"] * 12 + [name for name in "bcde" for _ in range(2)]  # those behind a busy one do not wait for it
    assert module.run([(host, lambda host=host: task(host)) for host in hosts], threading.Event()) == hosts
    assert all(most[name] == module.PER_HOST for name in "abcde") and most["all"] == module.AT_ONCE


def test_a_failure_leaves_the_others_running_and_an_interruption_does_not(monkeypatch):
    def fails():
        raise HodorError("no such file")

    stop = threading.Event()
    results = module.run([("a", fails), ("a", lambda: 2), ("b", lambda: 3)], stop)
    assert str(results[0]) == "no such file" and results[1:] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        module.run([("a", lambda: 1 / 0)], stop)
    monkeypatch.setattr(module, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        module.run([("a", lambda: stop.wait(10))] * 5, stop)
    assert stop.is_set()


# By name


def test_archives_go_where_the_workflow_looks(place, server, capsys, monkeypatch):
    monkeypatch.setattr(Progress.__init__, "__defaults__", ("B", 0, 0.01))
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
    server.requests.clear()
    assert main(["fetch", "davis", "--scale", "paper", "--mirror", server.address + "/"]) == 0
    assert server.requests == [], "nothing is asked of the server"


def test_published_checksums_are_enforced(place, root, server):
    """The small archives are not the official ones, which the table knows by size, sha256 or md5."""
    shutil.copy(root / "config/datasets.csv", place / "config/datasets.csv")
    for dataset, message in (("davis2016", "md5 .* where 0cb3cf9c"), ("resnet-imagenet", "has .* bytes where")):
        with pytest.raises(HodorError, match=message):
            fetch_command([dataset], scale="paper", mirror=server.address)
        assert visible(place / "data/paper/archives" / dataset) == []
    assert not (place / "config/locks").exists()


def test_names_and_groups(root):
    paper, mini = (load(root / "config", {"scale": scale}) for scale in ("paper", "mini"))
    of_scale = list(paper.scale.datasets)
    assert command._datasets(paper, []) == of_scale
    assert set(command._datasets(paper, ["all"])) == {*of_scale, *RELEASED}
    weights = command._datasets(paper, ["weights"])
    assert set(weights) == {"swin-tiny-mask-rcnn-3x", "resnet-imagenet", *RELEASED}
    assert command._datasets(paper, ["duts", "weights", "duts"]) == ["duts", *weights]
    assert command._datasets(mini, ["weights"]) == list(RELEASED)
    for names in ([], ["coco"], ["stm-released", "davis"]):
        with pytest.raises(HodorError, match="scale mini generates its data.*--scale paper"):
            command._datasets(mini, names)
    with pytest.raises(HodorError, match="'davos' is none of all, weights, coco,.*nearest: davis"):
        command._datasets(paper, ["davos"])
    assert set(ARCHIVES).isdisjoint(RELEASED)


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
    lines = [line.split(",") for line in table.read_text().splitlines() if "-released," in line]
    text = table.read_text()
    for line in lines:
        host, _, rest = line[4].removeprefix("https://").partition("/")
        text = text.replace(line[4], f"{server.address}/{host}/{rest.partition('?')[0]}")
    table.write_text(text)
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
    for part in (
        "by hand as data/weights/stcn-released/stcn_s0.pth",
        "https://github.com/hkchengrex/STCN",
        "not been opened",
    ):
        assert part in message
    weights = place / "data/weights"
    expected = {"static_image": "static", "video_sparse": "1000", "video_dense": "dense"}
    for name, file in expected.items():
        assert (weights / "hodor-released" / f"{name}.pth").read_bytes() == files[file]
    assert (weights / "stm-released/STM_weights.pth").read_bytes() == files["stm"]
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
            write_zip(folder / f"{name}.tmp")
            (folder / f"{name}.tmp").rename(folder / name)

    person = threading.Thread(target=bring)
    person.start()
    fetch_command(["youtube-vos"], scale="paper", wait=True, pause=0.05)
    person.join()
    assert (folder / "archives.json").exists() and capsys.readouterr().out.count("waiting for the files") == 1


def test_room_for_all_is_asked_before_the_first_byte(place, server, mirror, out, monkeypatch):
    sizes = [(mirror / SET / name).stat().st_size for name in NAMES]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=sum(sizes) - 1))
    with pytest.raises(HodorError, match=f"are free, .* are needed for {NAMES[0]}, {NAMES[1]}; make room"):
        fetch(stamp(mirror), out)
    with pytest.raises(HodorError, match=f"are needed for {NAMES[0]}; make room"):  # a size of the table
        fetch(stamp(server.address, size=1 << 30), out)
    assert not visible(out) and not server.requests


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
