"""The paper's numbers: the file that holds them, and where tables show them."""

import re

import pytest

from hodor.reporting.formats import COMPARED, POSTER, is_number
from hodor.reporting.tables import comparison_cells, published_value
from hodor.scoring.statistics import Bootstrap
from tests.refused import refused
from tests.reporting.conftest import NOTE, OUT, make, markdown, read

VAL = "davis2017-val"


@pytest.mark.parametrize(("table", "numbers"), [("ablation", ("77.5",)), ("comparison", ("77.5", "65.0"))])
def test_below_scale_paper_its_numbers_have_a_table_of_their_own(tabulated, table, numbers):
    text = (OUT / f"{table}_table.md").read_text()
    ours, apart = text.split("## The paper's numbers: another experiment")
    assert "Measured at tiny scale. Numbers without meaning, on generated data." in ours
    assert "nothing about the paper's numbers" in ours and "not to be compared" in apart
    for number in numbers:
        assert number not in ours and number in apart
    assert not any(column.startswith("paper") for column in markdown(table)[0])
    # A table of rows without published numbers has no such heading.
    make(tabulated, published=[])
    assert "another experiment" not in (OUT / f"{table}_table.md").read_text()


def test_at_scale_paper_its_numbers_are_beside_ours(empty_project):
    project = empty_project
    (project.folder / "data" / "tiny").rename(project.folder / "data" / "paper")
    project.scale = "paper"
    project.add("hodor-soft-coco", "soft", tables=["ablation", "comparison"])
    project.add("dmn-aoa", method="dmn-aoa", tables=["comparison"], note=NOTE, selected=False)
    make(project)
    head, soft = markdown("ablation")
    assert soft[head.index("paper's J&F")] == "77.5"
    head, soft, dmn = markdown("comparison")
    paper = [number for number, column in enumerate(head) if column.startswith("paper's")]
    assert head[3] == "paper's DAVIS-2017 val J&F" and re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", soft[2])
    assert [[row[number] for number in paper] for row in (soft, dmn)] == [["77.5", "65.0", "–", "–"], ["67.9", *"–––"]]
    assert dmn[-1] == NOTE and dmn[2] == "not run"
    text = (OUT / "comparison_table.md").read_text()
    assert "another experiment" not in text and "say nothing" not in text
    notes = text.partition("## Notes on the paper's numbers")[2]
    assert "no code released" in notes and "Hodor-Soft-Coco |" not in notes


def test_the_published_file_holds_both_tables_of_the_poster(root):
    lines = read(root / "config" / "published.csv")
    ablation = [line["value"] for line in lines if line["table"] == "ablation" and line["metric"] == "J&F"]
    assert ablation == ["74.4", "74.5", "77.5", "79.1", "78.4", "80.6"]
    comparison = {}
    for line in lines:
        if line["table"] == "comparison":
            comparison[line["row"]] = f"{comparison.get(line['row'], '')} {line['value']}".strip()
    ours = {"hodor-soft-coco": "77.5 65.0 71.7", "hodor-soft-cyclic": "80.6 66.0 72.4"}
    stcn = {"stm": "60.0 69.1", "dmn-aoa": "67.9", "kmn": "68.9", "stcn": "75.8 51.7 69.4"}
    assert comparison == ours | stcn
    assert all(published_value(lines, line["row"], line["benchmark"], line["metric"]) is not None for line in lines)
    assert all(line["source"] for line in lines)
    compared = {(line["benchmark"], line["metric"]) for line in lines if line["table"] == "comparison"}
    assert compared == {(benchmark.id, benchmark.metric) for benchmark in COMPARED if benchmark.id in POSTER}
    stcn = comparison_cells(lines, "stcn", [], Bootstrap(1000, 0))
    assert stcn["davis2017-val_paper_J&F"] == "75.8" and stcn["ytvos2019-val_paper_G"] == "69.4"
    assert stcn["davis2017-test-dev_paper_J&F"] == "51.7"
    assert "presumably run by the HODOR authors" in stcn["davis2017-test-dev_note"]
    assert is_number("paper's YouTube-VOS 2018 val G") and not is_number("note") and not is_number("benchmark")


def test_broken_published_numbers():
    line = {"row": "a", "benchmark": VAL, "metric": "J&F", "value": "77.5"}
    assert published_value([line, line | {"metric": "J", "value": "1"}], "a", VAL) == 77.5
    assert published_value([line], "b", VAL) is None
    for value in ("", "775", "-1", "n/a"):
        refused("published.csv.*not in 0..100", published_value, [line | {"value": value}], "a", VAL)
    refused("77.5, 78.0", published_value, [line, line | {"value": "78"}], "a", VAL)
