"""A failed step fails the run, and its one-line error names the fix."""

import shutil


def only_line(output: str, verb: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith(f"hodor {verb}: error: ")]
    assert len(lines) == 1, output[-3000:]
    assert "Traceback" not in output
    return lines[0]


def test_a_damaged_archive_is_named(checkout):
    shutil.rmtree(checkout.path / "data/tiny/davis")
    archive = checkout.path / "data/tiny/archives/davis/DAVIS-2017-trainval-480p.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    done = checkout.run("snakemake", "--cores", "1", "--", "data/tiny/davis", check=False)
    assert done.returncode == 1
    assert str(archive.relative_to(checkout.path)) in only_line(done.stdout, "prepare")
    log = (checkout.path / "runs/tiny/logs/prepare-davis.log").read_text()
    assert only_line(log, "prepare") == only_line(done.stdout, "prepare")
    assert not (checkout.path / "data/tiny/davis.json").exists()


def test_a_damaged_frame_is_named_and_extracting_again_fixes_it(checkout):
    frame = next((checkout.path / "data/tiny/davis").rglob("*.jpg"))
    whole = frame.read_bytes()
    for path in (checkout.path / "data/tiny/davis").rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:-50])
    target = "runs/tiny/hodor-soft-coco/seed0/davis2017-val/masks.json"
    done = checkout.run("snakemake", "--cores", "1", "--force", "--", target, check=False)
    assert done.returncode == 1
    assert "data/tiny/davis" in only_line(done.stdout, "segment")
    checkout.snakemake("--force", "--", "data/tiny/davis.json")
    assert frame.read_bytes() == whole
    checkout.snakemake("--", target)


def test_a_missing_data_set_is_named_with_the_command_that_brings_it_back(checkout):
    shutil.rmtree(checkout.path / "data/tiny/coco")
    target = "runs/tiny/hodor-soft-coco/seed0/model.safetensors"
    done = checkout.run("snakemake", "--cores", "1", "--force", "--", target, check=False)
    assert done.returncode == 1
    message = only_line(done.stdout, "train")
    command = message[message.index("snakemake") :].split()
    assert command[0] == "snakemake" and command[-1] == "data/tiny/coco.json"
    checkout.run(*command)
    assert (checkout.path / "data/tiny/coco/train2017").is_dir()


def test_a_step_that_is_killed_says_what_to_do(checkout):
    """As the kernel does it where memory runs out."""
    checkout.edit("hodor/cli/main.py", "options.command(options)", "os.kill(os.getpid(), 9)")
    target = "runs/tiny/copy-first-mask/seed0/davis2017-val/score.json"
    (checkout.path / target).unlink()
    done = checkout.run("snakemake", "--cores", "1", "--", target, check=False)
    named = [line for line in done.stdout.splitlines() if line.startswith("hodor score copy-first-mask: killed")]
    assert done.returncode == 1 and len(named) == 1 and "memory" in named[0] and "--cores" in named[0]


def test_a_path_may_hold_braces(fresh):
    checkout = fresh()
    place = checkout.path.rename(checkout.path.with_name("p{x} {row}"))
    assert type(checkout)(place).due("copy-first-mask")["segment"] > 0


def test_wrong_arguments_stop_before_any_step(checkout):
    """Snakemake would keep the last of two `--config` alone, and make another scale than the one asked for."""
    for arguments, message in (
        (("--config", "scale=minni"), "command line: scale: 'minni' is none of mini, paper, subset, tiny"),
        (("--config", "scale=tiny", "--config", "rows=main"), "--config is given twice"),
        (("--", "runs/tiny/hodor-sotf-coco/seed0/train.json"), "hodor-sotf-coco"),
    ):
        done = checkout.run("snakemake", "-n", *arguments, check=False)
        assert done.returncode == 1 and message in done.stdout and "Traceback" not in done.stdout
