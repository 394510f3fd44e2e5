"""The pages: self-contained, escaped, clear about what their numbers mean, and the same each time."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from markupsafe import escape
from nbformat import NotebookNode

from hodor.reporting import notebooks
from hodor.reporting.gallery import all_figures, curves
from hodor.reporting.html import POLICY, SCRIPT, costs_html, figures_html, head_html, scores_html
from hodor.reporting.runs import read_run
from hodor.reporting.selection import Report
from hodor.reporting.site import index_context, page, render, run_page
from tests.refused import refused
from tests.reporting.conftest import NOTE, VAL

NOTEBOOKS = ("ablation", "comparison", "qualitative")
PAGES = ("index.html", *(f"{name}.{kind}" for name in NOTEBOOKS for kind in ("html", "ipynb")))
HTML = tuple(name for name in PAGES if name.endswith(".html"))
ROWS = ("hodor-none-coco", "hodor-soft-coco", "hodor-soft-cyclic", "dmn-aoa", "copy-first-mask")
FIGURES = {
    "intervals_ablation", "intervals_comparison", "strip_ablation_median", "strip_comparison_median", "failure_1",
    "region_over_time", "objects_soft_against_davis2017-val", "attention_rows", "attention_layers", "alphas",
    "alphas_over_steps_hodor-soft-coco", "alphas_over_steps_hodor-soft-cyclic", "training_ablation",
    "training_comparison", "costs",
}  # fmt: skip
STATEMENT = "Measured at tiny scale. Numbers without meaning, on generated data. These numbers say nothing about the"
RESULTS = Path("results/tiny")
VILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page:
    """Every address that a page refers to, its anchors, scripts, event handlers and visible text."""

    def __init__(self, source: Path | str):
        page = BeautifulSoup(source.read_text(encoding="utf-8") if isinstance(source, Path) else source, "html.parser")
        tags, named = page.find_all(True), ("href", "src", "srcset", "action", "data")
        self.addresses = [tag[name] for tag in tags for name in named if name in tag.attrs]
        self.anchors = {tag.get("id") for tag in tags}
        self.alts = [tag.get("alt") for tag in page("img")]
        self.scripts = [tag.string or "" for tag in page("script")]
        self.handlers = {name for tag in tags for name in tag.attrs if name.startswith("on")}
        self.text = page.get_text()  # without that of scripts and style sheets


def make(project, out: Path) -> Path:
    render({"settings": project.settings()}, RESULTS, project.runs, project.data, out)
    return out


@pytest.fixture(scope="module")
def pages(made_project, tmp_path_factory) -> tuple:
    """(project, folder of the pages), rendered once for the tests that only read."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("pages") / "project"
        shutil.copytree(made_project.folder, folder)
        monkeypatch.chdir(folder)
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
    read = {name: Page(folder / name) for name in site(folder) if name.endswith(".html")}
    for name, found in read.items():
        assert len(found.addresses) > 1
        for address in found.addresses:
            if address.startswith("data:"):
                continue
            path, _, anchor = address.partition("#")
            target = (folder / name).parent / path if path else folder / name
            assert target.resolve().is_relative_to(folder.resolve()), f"{name}: {address} leaves the folder"
            assert target.is_file(), f"{name}: {address}"
            if anchor:
                assert anchor in read[target.resolve().relative_to(folder.resolve()).as_posix()].anchors, address
        # The site's own script is in each page; browsers refuse any other, and everything from elsewhere.
        assert found.scripts == [SCRIPT] and not found.handlers
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(|https?://", text) and POLICY in text
    assert "default-src 'none'" in POLICY and "script-src 'sha256-" in POLICY
    assert "'unsafe" not in POLICY.partition("script-src")[2]


def test_the_meaning_of_the_numbers_comes_before_them(pages):
    folder = pages[1] / "reports" / "tiny"
    for name in (*HTML, *(f"runs/{row}-seed0.html" for row in ROWS)):
        text = Page(folder / name).text
        assert not re.search(r"\d\d\.\d", text[: text.index(STATEMENT)])
        of_run = {"copy": "nothing", "dmn": "static images", "cyclic": "video"}
        trained_on = next((data for part, data in of_run.items() if part in name), "COCO")
        for fact in ("seed", "abc123", "Abacus 9", trained_on):
            assert fact in text[text.index(STATEMENT) :], (name, fact)
    assert all(NOTE in Page(folder / name).text for name in HTML)
    for name in HTML[1:3]:
        # What precedes a heading of the paper's numbers is ours, from the heading of a table on.
        before, *after = Page(folder / name).text.split("The paper's numbers: another experiment")
        assert any("77.5" in part for part in after), name
        assert "77.5" not in before[before.rfind("training data") :]


def test_the_start_page_begins_with_both_tables_the_claims_and_masks(pages):
    folder = pages[1] / "reports" / "tiny"
    html = (folder / "index.html").read_text()
    first = Page(html.partition('<section id="ablation">')[0])
    order = ("Table 1:", "Table 2:", "The paper's claims", "Masks", "ground truth")
    assert [first.text.index(part) for part in order] == sorted(first.text.index(part) for part in order)
    # Ours beside the paper's, which is marked as another experiment.
    table = first.text.partition("Table 1:")[2].partition("Table 2:")[0]
    ours, low, high = map(float, re.search(r"Hodor-Soft-Coco([\d.]+) \[([\d.]+), ([\d.]+)\]77\.5", table).groups())
    assert low < ours < high and "official data" in table
    assert re.search(r"Hodor-Hard-Coconot run", table)
    assert NOTE in first.text and re.search(r"commit abc123; machine Abacus 9.*seeds 0", first.text)
    assert len(first.alts) == 3 and "have no verdicts" in first.text  # ground truth, two rows; no claims.json here


def test_the_start_page_holds_all_tables_and_leads_to_every_run(pages):
    found = Page(pages[1] / "reports" / "tiny" / "index.html")
    for label in ("Hodor-None-Coco", "Hodor-Soft-Cyclic", "Hodor-Hard-Coco", "Copy-First-Mask", "not run"):
        assert label in found.text
    for row in ROWS:
        # J&F, J, F or the benchmarks of table 2.
        assert found.addresses.count(f"runs/{row}-seed0.html#{VAL}") >= (3 if row != "dmn-aoa" else 1)
        assert f"runs/{row}-seed0.html" in found.addresses
    assert not any("hard" in address for address in found.addresses if address.startswith("runs/"))
    assert {name for name in PAGES if name != "index.html"} <= set(found.addresses)
    assert "#comparison" in found.addresses and "YouTube-VOS 2019 val G" in found.text
    assert "Jane Doe, R. & R. Roe. A Paper about Masks. Some Conference. 2022." in found.text
    assert "@inproceedings{doe2022a" in found.text and "@software{" in found.text


def test_commit_machine_versions_and_seeds_are_below_every_table(pages):
    folder = pages[1] / "reports" / "tiny"
    for name in (name for name in site(folder) if name.endswith(".html")):
        html = (folder / name).read_text()
        for after in html.split('<div class="table">')[1:]:
            foot = re.match(r'.*?</table></div>\s*<p class="foot">(.*?)</p>', after, re.DOTALL)
            assert foot, name
            assert "config/published.csv" in foot[1] or re.fullmatch(
                r"commit abc123; machine Abacus 9.*; versions .*torch 2\.13\.0.*; seeds 0", foot[1]
            )


def test_the_page_of_a_run_has_its_scores_curves_masks_and_manifest(pages):
    project, folder = pages
    for row in ROWS:
        found = Page(folder / "reports" / "tiny" / "runs" / f"{row}-seed0.html")
        manifest = json.loads((folder / project.run(row) / "manifest.json").read_text())
        assert manifest["model"] in found.text
        run = read_run(folder / project.run(row))
        assert f"{100 * run.predictions[VAL].overall['J&F-Mean']:.1f}" in found.text
        assert "4 objects" in found.text and "its sequence of median score" in found.text
        *_, lowest = re.findall(r"its sequence of (?:median|lowest) score: J&F ([\d.]+)\.", found.text)
        assert lowest == f"{run.predictions[VAL].sequence_scores().min():.1f}"
        drawn = {"copy-first-mask": 0, "hodor-none-coco": 1, "dmn-aoa": 1}.get(row, 2)  # losses, alphas
        assert len([alt for alt in found.alts if "over" in alt]) == drawn
        assert len(found.alts) - drawn in (2, 4) and all(len(alt) > 15 for alt in found.alts)
        assert (NOTE in found.text) == (row == "dmn-aoa")


def test_the_notebooks_show_their_figures_and_costs(pages):
    for name, least in (("ablation", 4), ("comparison", 2), ("qualitative", 4)):
        found = Page(pages[1] / "reports" / "tiny" / f"{name}.html")
        assert len(found.alts) >= least and all(alt and len(alt) > 20 for alt in found.alts)
        assert "Traceback" not in found.text and "abc123" in found.text
        if name == "comparison":
            costs = found.text.rpartition("segmenting, frames/s")[2]
            assert "dmn-aoa" in costs and "hodor-soft-coco" in costs and "hodor-none-coco" not in costs
            assert "8.0" in costs and "300.2" in costs


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
    kinds = {output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", [])}
    assert kinds <= {"display_data", "execute_result"}


def test_names_and_notes_are_text_wherever_they_are_shown(project):
    for row in ("hodor-soft-coco", "dmn-aoa"):
        project.rows[row] |= {"label": VILE + row, "note": VILE, "trained_on": VILE}
    settings = {"title": VILE, "caption": VILE}
    project.tabulate(RESULTS, **settings)
    report, settings = Report(RESULTS, project.runs, project.data), project.settings(**settings)
    system = report.systems["ablation"][1]
    context = index_context(settings, report)
    index = page("index", VILE, **context, figures=dict.fromkeys(context["sections"], ()))
    whole = [index, run_page(settings, report, system, system.runs[0])]
    parts = [head_html(settings, report), figures_html(curves(report, "comparison"))]
    parts += [scores_html(report, table, False, linked=True) for table in ("ablation", "comparison", "extended")]
    for html in [*whole, *parts]:
        assert str(escape(VILE)) in html and "<script>alert" not in html and "<img src=x" not in html
        assert not Page(str(html)).handlers
    assert all(Page(html).scripts == [SCRIPT] for html in whole)


@pytest.mark.long
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
    # One notebook, the one with torch, runs again: what makes its bytes the same is shared by all.
    execute = notebooks.execute

    def only_one(source: Path, parameters: dict) -> NotebookNode:
        if source.stem == "qualitative":
            return execute(source, parameters)
        return nbformat.read(folder / "reports" / "tiny" / f"{source.stem}.ipynb", as_version=4)

    monkeypatch.setattr(notebooks, "execute", only_one)
    make(project, Path("again"))
    assert site(copy / "again") == files
    for name in files:
        assert (copy / "again" / name).read_bytes() == (folder / "reports" / "tiny" / name).read_bytes(), name


def test_a_broken_mask_is_one_error_and_no_page(tabulated):
    for path in (tabulated.run("hodor-soft-coco") / VAL / "masks").glob("*/00000.png"):
        path.write_bytes(path.read_bytes()[:-20])
    refused(r"hodor-soft-coco/.*/00000\.png: truncated", make, tabulated, Path("reports"))
    assert not Path("reports").exists()


def test_a_table_without_any_run_still_makes_pages(empty_project):
    empty_project.add("hodor-soft-coco", "soft", selected=False)
    empty_project.tabulate(RESULTS)
    settings, report = empty_project.settings(), Report(RESULTS, empty_project.runs, empty_project.data)
    assert list(all_figures(report, "tiny")) == [] and "Nothing to draw" in figures_html([])
    context = index_context(settings, report)
    html = page("index", "title", **context, figures=dict.fromkeys(context["sections"], ()))
    assert "not run" in Page(html).text and "Nothing to draw" in Page(html).text
    assert "This table has no rows" in scores_html(report, "comparison", False)
    assert "Nothing was run" in costs_html(report, "comparison") and head_html(settings, report)
