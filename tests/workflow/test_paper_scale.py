"""docs/paper-scale.md: its commands are the workflow's, its numbers those of `hodor cost`."""

import re

import pytest

from hodor.config import loading as config


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "paper-scale.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return re.search(rf"^## \d+\. {title}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[0]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_released_weights_come_first_and_are_those_of_the_settings(page, root):
    assert "released weights" in page.partition("## 2.")[0]
    listed = set(re.findall(r"\| `(\S+\.pth)` \| `(\S+)` \|", section(page, "Score the released weights")))
    rows = config.load(root / "config", {"scale": "paper"}).rows.values()
    assert listed == {(row.weights, row.compare) for row in rows if row.weights}
    published = (root / "config" / "published.csv").read_text()
    for number in re.findall(
        r"\| (\d\d\.\d)(?: is another training.*)? \|$", section(page, "Score the released weights"), re.MULTILINE
    ):
        assert f"davis2017-val,J&F,{number}," in published


def test_the_steps_of_each_row_are_those_of_the_scale(page, root):
    paper = config.load(root / "config", {"scale": "paper", "rows": "all"})
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section(page, "Cost of a row").splitlines()
        if line[:2] == "| "
    ]
    table = {line[0]: line for line in lines[1:]}
    trained = {row for row, entry in paper.rows.items() if entry.stage}
    assert table.keys() == trained
    for row, cells in table.items():
        assert cells[1] == (paper.rows[row].init or "")
        assert int(cells[3].replace(",", "")) == paper.stage(row).steps
        # The slower card's hours are those of the faster one, times the ratio of the assumed speeds.
        assert float(cells[6]) == pytest.approx(5 * float(cells[5]), abs=0.6)


def test_several_gpus_are_one_setting(checkout, page):
    """The command for several GPUs at scale tiny, on GPUs as far as Snakemake knows."""
    (command,) = blocks(section(page, "Several GPUs of one machine"))
    command = command.replace("scale=paper mirror=FOLDER", """scale=tiny 'overrides={"device": "cuda"}'""")
    output = checkout.run("bash", "-eu", "-c", command.replace("--cores all", "--dry-run --cores all")).stdout
    trainings = re.findall(r"^rule train:\n(?:    .*\n)*?    resources: .*gpu=(\d)", output, re.MULTILINE)
    assert trainings == ["1"] * len(checkout.config().tabulated("ablation"))
    done = checkout.run("bash", "-eu", "-c", command.replace("""'overrides={"device": "cuda"}'""", ""))
    assert 'gpu=Resource("gpu", 3)' in done.stdout or "Nothing to be done" in done.stdout


@pytest.mark.long
def test_the_rows_of_several_machines_become_one_table(fresh, page):
    """The commands for several machines at scale tiny, one machine after another."""
    checkout = fresh()
    data, train, gather = (
        block.replace("scale=paper", "scale=tiny").replace("/paper", "/tiny").replace(" mirror=FOLDER", "")
        for block in blocks(section(page, "Several machines"))
    )
    bash = ("bash", "-eu", "-c")
    checkout.run(*bash, data)
    prepared = {path: path.stat().st_ino for path in (checkout.path / "data").rglob("*") if path.is_file()}
    for gpu, masking in enumerate(("soft", "hard", "none")):
        checkout.run(*bash, f"GPU={gpu} MASKING={masking}\n{train}")
    assert prepared == {path: path.stat().st_ino for path in prepared}, "no data set was made again"
    trained = {path: path.read_bytes() for path in checkout.path.glob("gpu*/runs/tiny/*/seed0/model.safetensors")}
    assert len(trained) == 6
    join, table = gather.splitlines()
    checkout.run(*bash, join.replace("hodor", "python -m hodor", 1))
    shown = {"tabulate_ablation": 1, "publish_ablation": 1}
    assert checkout.due("--config", "rows=ablation", "--", "results/ablation_table.csv") == shown, "the table alone"
    checkout.run(*bash, table)
    for path, content in trained.items():
        assert checkout.path.joinpath(*path.relative_to(checkout.path).parts[1:]).read_bytes() == content
    lines = {line["row"]: line for line in checkout.table("results/ablation_table.csv")}
    assert len(lines) == 6 and all(0 <= float(line["J&F"]) <= 100 for line in lines.values())
    assert {line["note"] for line in lines.values()} == {"trained elsewhere: seed 0"}
    # What was copied is believed by no table: a number edited by hand on the way is refused.
    path = checkout.path / "runs" / "tiny" / "hodor-soft-coco" / "seed0" / "davis2017-val" / "global.csv"
    path.write_text(re.sub(r"^[\d.]+", "0.999", path.read_text(), flags=re.MULTILINE))
    for folder in ("results/tiny", "results"):
        (checkout.path / folder / "ablation_table.csv").unlink()
    output = checkout.run(*bash, table, check=False).stdout
    assert "global.csv" in output and "error" in output
