"""The pages: they stand alone, say what the numbers mean, and come out the same each time."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hodor.errors import HodorError
from hodor.provenance import write_json_atomic
from hodor.reporting.released import COLUMNS, SCORED
from hodor.reporting.render import _sections, render
from hodor.reporting.report import Report
from hodor.reporting.runs import read_run
from hodor.reporting.site import SCRIPT
from hodor.reporting.tables import csv_text

NOTEBOOKS = ("ablation", "comparison", "qualitative")
PAGES = ("index.html", *(f"{name}.{kind}" for name in NOTEBOOKS for kind in ("html", "ipynb")))
HTML = tuple(name for name in PAGES if name.endswith(".html"))
ROWS = ("hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "dmn-aoa", "copy-first-mask")
FIGURES = {
    "intervals_ablation", "intervals_comparison", "strip_ablation_median", "strip_comparison_median", "failure_1",
    "region_over_time", "objects_soft_against", "attention_rows", "attention_layers", "alphas",
    "alphas_over_steps_hodor-soft-coco", "alphas_over_steps_hodor-soft-cyclic", "training_ablation",
    "training_comparison", "costs",
}  # fmt: skip
NOTE = "re-interpretation from the abstract; 67.9 not reproduced"
RESULTS = Path("results/tiny")


class Page(HTMLParser):
    """Every address that a page refers to, every anchor in it, its scripts, and its visible text."""

    def __init__(self, path: Path):
        super().__init__()
        self.addresses, self.anchors, self.alts, self.scripts, self.text = [], set(), [], [], ""
        self._in = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._in = tag if tag in ("style", "script") else ""
        self.addresses += [values[name] for name in ("href", "src", "srcset", "action", "data") if name in values]
        self.anchors.add(values.get("id"))
        if tag == "img":
            self.alts.append(values.get("alt"))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif not self._in:
            self.text += data


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


def site(folder: Path) -> list[str]:
    """Every file of a site, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_site_has_every_page_every_figure_and_a_page_for_each_run(pages):
    files = site(pages[1] / "reports" / "tiny")
    figures = {Path(name).stem for name in files if name.startswith("figures/")}
    # Where the median sequence is the one on which rows differ most, or rows never differ, there are fewer.
    assert FIGURES <= figures
    assert figures - FIGURES <= {"strip_ablation_differing", "strip_comparison_differing", "failure_2", "failure_3"}
    runs = {f"runs/{row}-seed0.html" for row in ROWS}
    assert set(files) == {*PAGES, *runs, *(f"figures/{name}.{kind}" for name in figures for kind in ("pdf", "png"))}


def test_the_pages_ask_for_nothing_outside_and_every_link_resolves(pages):
    folder = pages[1] / "reports" / "tiny"
    names = [name for name in site(folder) if name.endswith(".html")]
    read = {name: Page(folder / name) for name in names}
    for name, page in read.items():
        assert len(page.addresses) > 1
        for address in page.addresses:
            if address.startswith("data:"):
                continue
            path, _, anchor = address.partition("#")
            target = (folder / name).parent / path if path else folder / name
            assert target.resolve().is_relative_to(folder.resolve()), f"{name}: {address} leaves the folder"
            assert target.is_file(), f"{name}: {address}"
            if anchor:
                assert anchor in read[target.resolve().relative_to(folder.resolve()).as_posix()].anchors, address
        # The site's own script stands in each page; nothing is loaded, and the browser is told to refuse it.
        assert page.scripts == [SCRIPT]
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(|https?://", text)
        assert "default-src 'none'" in text


def test_the_meaning_of_the_numbers_comes_before_them(pages):
    statement = (
        "Measured at tiny scale. Numbers without meaning, on generated data. These numbers say nothing about the"
    )
    folder = pages[1] / "reports" / "tiny"
    for name in HTML:
        text = Page(folder / name).text
        said = text.index(statement)
        assert 0 < said and not re.search(r"\d\d\.\d", text[:said])
        # Then, still at the head, scale, seeds, data, code and machine.
        head = text[said : said + 900]
        facts = (
            "tiny, made up",
            "seeds0",
            "DAVIS-2017 val (davis2017-val, manifest sha256",
            "COCO",
            "abc123",
            "Abacus 9",
        )
        for fact in facts:
            assert fact in head, fact
    for name in HTML[:3]:
        text = Page(folder / name).text
        # What comes before a heading of the paper's numbers are ours, from the heading of a table on.
        *tables, _ = text.split("The paper's numbers: another experiment")
        assert tables
        for before in tables:
            assert "77.5" not in before[before.rfind("training data") :]
        assert "77.5" in text
    for row in ROWS:
        assert statement in Page(folder / "runs" / f"{row}-seed0.html").text


def test_the_start_page_holds_all_tables_and_leads_to_every_run(pages):
    folder = pages[1] / "reports" / "tiny"
    page = Page(folder / "index.html")
    for label in ("Hodor-None-Coco", "Hodor-Soft-Cyclic", "Hodor-Hard-Coco", "Copy-First-Mask", "not run"):
        assert label in page.text
    for row in ROWS:
        # J&F, J, F or the benchmarks of table 2.
        assert page.addresses.count(f"runs/{row}-seed0.html#davis2017-val") >= (3 if row != "dmn-aoa" else 1)
        assert f"runs/{row}-seed0.html" in page.addresses
    assert not any("hard" in address for address in page.addresses if address.startswith("runs/"))
    assert {name for name in PAGES if name != "index.html"} <= set(page.addresses)
    assert "#comparison" in page.addresses and "YouTube-VOS 2019 val G" in page.text


def test_the_page_of_a_run_has_its_scores_curves_masks_and_manifest(pages):
    project, folder = pages
    for row in ROWS:
        page = Page(folder / "reports" / "tiny" / "runs" / f"{row}-seed0.html")
        manifest = json.loads((folder / project.run(row) / "manifest.json").read_text())
        assert manifest["model"] in page.text
        run = read_run(folder / project.run(row))
        assert f"{100 * run.predictions['davis2017-val'].overall['J&F-Mean']:.1f}" in page.text
        assert "4 objects" in page.text and "its sequence of median score" in page.text
        drawn = {"copy-first-mask": 0, "hodor-none-coco": 1, "dmn-aoa": 1}.get(row, 2)  # losses, alphas
        assert len([alt for alt in page.alts if "over" in alt]) == drawn
        assert len(page.alts) - drawn in (1, 2) and all(len(alt) > 15 for alt in page.alts)
    assert NOTE in Page(folder / "reports" / "tiny" / "runs" / "dmn-aoa-seed0.html").text


def test_the_start_page_says_how_to_cite(pages):
    text = Page(pages[1] / "reports" / "tiny" / "index.html").text
    assert "Jane Doe, R. & R. Roe. A Paper about Masks. Some Conference. 2022." in text
    assert "@inproceedings{doe2022a" in text and "@software{" in text


def test_without_verdicts_the_start_page_says_so_and_with_them_they_come_first(project):
    project.tabulate(RESULTS)
    sections = _sections(project.settings(), Report(RESULTS, project.runs, project.data))
    assert next(iter(sections)) == "claims" and "were not judged" in sections["claims"][1]
    claim = {"claim": "Soft beats <none>.", "verdict": "supported", "effect": 2.04, "interval": [0.5, -3.0]}
    write_json_atomic(RESULTS / "claims.json", {"scale": "tiny", "statement": "On tiny.", "claims": [claim]})
    html = _sections(project.settings(), Report(RESULTS, project.runs, project.data))["claims"][1]
    assert "Soft beats &lt;none&gt;." in html and "supported" in html and "+2.0 points" in html and "On tiny." in html


def test_released_weights_stand_apart_from_our_numbers_but_at_the_scale_of_the_paper(project):
    project.tabulate(RESULTS)
    there = {"row": "hodor-soft-coco", "benchmark": "davis2017-val", "released_J&F": "76.543", "status": SCORED}
    there |= {"note": "of another <training>"}
    absent = {"row": "dmn-aoa", "benchmark": "davis2017-val", "status": "absent: put it there"}
    (RESULTS / "released_weights.csv").write_text(csv_text(COLUMNS, [there, absent]))
    report = Report(RESULTS, project.runs, project.data)
    apart = _sections(project.settings(), report)["comparison"][1]
    before, title, after = apart.partition("The authors&#x27; released weights")
    told = "<li>Hodor-Soft-Coco: of another &lt;training&gt;</li>"
    assert told not in before and told in after
    assert title and "76.5" not in before and "76.5" in after and "absent: put it there" in after
    beside = _sections(project.settings(scale="paper"), report)["comparison"][1]
    first_table = beside.partition("</table>")[0]
    assert told in beside
    assert "released weights&#x27; DAVIS-2017 val J&amp;F" in first_table and "<span>76.5</span>" in first_table
    # The way to get what is absent is told below, not in a narrow column.
    assert "<span>absent</span>" in first_table and "absent: put it there" in beside.partition("</table>")[2]


def test_what_is_said_of_a_row_stands_wherever_the_row_does(pages):
    folder = pages[1] / "reports" / "tiny"
    index, ablation, comparison, qualitative = (Page(folder / name).text for name in HTML)
    # Comparison, extended, both with the paper's number, the costs; the curves, a strip or two.
    assert index.count(NOTE) in (7, 8)
    assert NOTE in qualitative
    # The table, the paper's number, the curves, a strip or two, the costs.
    strips = len(re.findall("Comparison of methods: the sequence ", comparison))
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


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_carries_nothing_of_the_run_that_made_it(pages, name):
    folder = pages[1]
    text = (folder / "reports" / "tiny" / f"{name}.ipynb").read_text()
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
    files = site(folder / "reports" / "tiny")
    copy = tmp_path / "moved"
    shutil.copytree(folder, copy)
    monkeypatch.chdir(copy)
    # A fresh machine: no home folder, nothing on the path; and another hash seed than before.
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    make(project, Path("again"))
    assert site(copy / "again") == files
    for name in files:
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
