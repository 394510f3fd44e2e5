"""The pages: they stand alone, say what the numbers mean, and come out the same each time."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hodor.errors import HodorError
from hodor.reporting.render import render

PAGES = ("index.html", "ablation.html", "ablation.ipynb", "comparison.html", "comparison.ipynb")
HTML = tuple(name for name in PAGES if name.endswith(".html"))
NOTE = "re-interpretation from the abstract; 67.9 not reproduced"
RESULTS = Path("results/tiny")


class Page(HTMLParser):
    """Every address that a page refers to, every anchor in it, and its visible text."""

    def __init__(self, path: Path):
        super().__init__()
        self.addresses, self.anchors, self.alts, self.tags, self.text, self._skip = (
            [],
            set(),
            [],
            set(),
            "",
            False,
        )
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._skip = tag in ("style", "script")
        self.tags.add(tag)
        self.addresses += [values[name] for name in ("href", "src", "srcset", "action", "data") if name in values]
        self.anchors.add(values.get("id"))
        if tag == "img":
            self.alts.append(values.get("alt"))

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        self.text += "" if self._skip else data


def make(project, out: Path) -> Path:
    render({"settings": project.settings()}, RESULTS, project.runs, project.data, out)
    return out


@pytest.fixture(scope="module")
def pages(made_project, tmp_path_factory) -> tuple:
    """(project, folder of the pages), rendered once for the tests that only look."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("pages") / "project"
        shutil.copytree(made_project.folder, folder)
        monkeypatch.chdir(folder)
        made_project.tabulate(RESULTS)
        make(made_project, Path("reports/tiny"))
    return made_project, folder


def test_the_pages_ask_for_nothing_outside_and_every_link_resolves(pages):
    folder = pages[1] / "reports" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == sorted(PAGES)
    for name in HTML:
        page = Page(folder / name)
        assert len(page.addresses) > 1
        for address in page.addresses:
            if address.startswith("data:"):
                continue
            if address.startswith("#"):
                assert address[1:] in page.anchors, address
            else:
                assert address in PAGES, f"{address} leaves the folder, or the pages cannot be copied elsewhere"
        assert "script" not in page.tags
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(|https?://", text)


def test_the_meaning_of_the_numbers_comes_before_them(pages):
    statement = (
        "Measured at tiny scale. Numbers without meaning, on generated data. These numbers say nothing about the"
    )
    for name in HTML:
        text = Page(pages[1] / "reports" / "tiny" / name).text
        assert 0 < text.index(statement) < text.index("J&F")
        # What comes before a heading of the paper's numbers are ours, from the heading of a table on.
        *tables, _ = text.split("The paper's numbers: another experiment")
        assert tables
        for before in tables:
            assert "77.5" not in before[before.rfind("training data") :]
        assert "77.5" in text


def test_the_start_page_holds_all_tables_and_every_manifest(pages):
    project, folder = pages
    page = Page(folder / "reports" / "tiny" / "index.html")
    for label in ("Hodor-None-Coco", "Hodor-Soft-Cyclic", "Hodor-Hard-Coco", "Copy-First-Mask", "not run"):
        assert label in page.text
    for row in ("hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "copy-first-mask"):
        manifest = folder / project.run(row) / "manifest.json"
        assert json.loads(manifest.read_text())["model"] in page.text
        assert f"#run-{row}-seed0" in page.addresses
    assert {"ablation.html", "ablation.ipynb", "comparison.html", "comparison.ipynb"} <= set(page.addresses)
    assert "#comparison" in page.addresses and "YouTube-VOS 2019 val G" in page.text


def test_what_is_said_of_a_row_stands_wherever_the_row_does(pages):
    folder = pages[1] / "reports" / "tiny"
    index, ablation, comparison = (Page(folder / name).text for name in HTML)
    # Comparison, extended, both with the paper's number, and the costs.
    assert index.count(NOTE) == 5
    # The table, the paper's number, the curves, a strip or two, the costs.
    strips = comparison.count("the sequence ")
    assert strips >= 1 and comparison.count(NOTE) == 4 + strips
    # Its label stands in the table of further rows.
    assert ablation.count(NOTE) == ablation.count("Dmn-Aoa") == 2


def test_the_comparison_shows_curves_frames_speed_and_memory_of_its_rows(pages):
    page = Page(pages[1] / "reports" / "tiny" / "comparison.html")
    # Curves, at least one strip.
    assert len(page.alts) >= 2 and all(alt and len(alt) > 20 for alt in page.alts)
    costs = page.text.rpartition("segmenting, frames/s")[2]
    assert "dmn-aoa" in costs and "hodor-soft-coco" in costs and "hodor-none-coco" not in costs
    assert "8.0" in costs and "300.2" in costs and "Traceback" not in page.text


def test_the_notebook_shows_every_figure_with_a_description(pages):
    page = Page(pages[1] / "reports" / "tiny" / "ablation.html")
    # Curves, alphas of two rows, at least one strip.
    assert len(page.alts) >= 4 and all(alt and len(alt) > 20 for alt in page.alts)
    for fact in ("commit", "abc123", "Abacus 9", "the sequence of median score"):
        assert fact in page.text
    assert "Traceback" not in page.text


def test_the_notebook_carries_nothing_of_the_run_that_made_it(pages):
    folder = pages[1]
    text = (folder / "reports" / "tiny" / "ablation.ipynb").read_text()
    notebook = json.loads(text)
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert "papermill" not in notebook["metadata"]
    assert str(folder) not in text and str(Path(__file__).parents[2]) not in text
    injected = [cell for cell in notebook["cells"] if "injected-parameters" in cell["metadata"].get("tags", [])]
    assert 'results = "results/tiny"' in "".join(injected[0]["source"])
    assert {output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", [])} <= {
        "display_data",
        "execute_result",
    }


def test_rendered_again_elsewhere_without_a_home_the_bytes_are_the_same(pages, tmp_path, monkeypatch):
    project, folder = pages
    copy = tmp_path / "moved"
    shutil.copytree(folder, copy)
    monkeypatch.chdir(copy)
    # A fresh machine: no home folder, nothing on the path; and another hash seed than before.
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    make(project, Path("again"))
    for name in PAGES:
        assert (copy / "again" / name).read_bytes() == (folder / "reports" / "tiny" / name).read_bytes(), name


def test_a_broken_mask_is_one_error_and_no_page(project):
    project.tabulate(RESULTS)
    for path in (project.run("hodor-soft-coco") / "davis2017-val" / "masks").glob("*/00000.png"):
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HodorError, match=r"hodor-soft-coco/.*/00000\.png: truncated"):
        make(project, Path("reports"))
    assert not Path("reports").exists()


def test_missing_tables_are_one_error(project):
    with pytest.raises(HodorError, match="results/tiny/ablation_table.csv.*tabulate"):
        make(project, Path("reports"))


def test_a_table_without_any_run_still_makes_pages(empty_project):
    empty_project.add("hodor-soft-coco", "soft", selected=False)
    empty_project.tabulate(RESULTS)
    make(empty_project, Path("reports"))
    assert "not run" in Page(Path("reports/index.html")).text
    assert "Nothing to draw" in Page(Path("reports/ablation.html")).text
    assert "This table has no rows" in Page(Path("reports/comparison.html")).text
