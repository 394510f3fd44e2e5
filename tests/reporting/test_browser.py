"""The report in a real browser: no errors, no request outside its folder, it fits a phone, tables sort, it prints."""

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from hodor.provenance import write_json_atomic
from hodor.reporting.site import render
from tests.reporting.browser import Browser, find_chromium

pytestmark = pytest.mark.long
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def site(made_project, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("site") / "project"
        shutil.copytree(made_project.folder, folder)
        monkeypatch.chdir(folder)
        settings = {"settings": made_project.settings()}
        claim = {"claim": "Soft masking is better than none.", "rows": ["a", "b"], "benchmark": "davis2017-val"}
        claim |= {
            "verdict": "supported",
            "metric": "J&F",
            "effect": 2.5,
            "interval": [1.0, 4.0],
            "reason": "it is above 0",
        }
        write_json_atomic(Path("results/tiny/claims.json"), {"claims": [claim] * 12 + [claim | {"verdict": "not run"}]})
        render(settings, Path("results/tiny"), made_project.runs, made_project.data, Path("reports"))
    return folder / "reports"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    command = find_chromium()
    if command is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    browser = Browser(command, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_loads_whole_quietly_and_from_its_folder_alone(browser, site, width, tmp_path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 4 + 5
    for page in pages:
        browser.open(page.as_uri(), width)
        assert browser.console == [], page.name
        assert browser.requests
        for address in browser.requests:
            parts = urlsplit(address)
            if parts.scheme != "data":
                assert parts.scheme == "file" and Path(unquote(parts.path)).is_relative_to(site), address
        assert browser.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
        # Nothing sticks out: what is wide scrolls within itself.
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, page.name
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            assert picture.width == width and picture.height > 1000
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50, "an empty page"


@pytest.mark.parametrize(
    "foreign",
    [
        '<img src="http://elsewhere.example/a.png">',
        "<script>document.title = 'taken'</script>",
        "<img src=data: onerror=\"document.title = 'taken'\">",
    ],
)
def test_what_a_page_must_not_do_is_refused_and_reported(browser, site, foreign):
    """The test above can fail: the page's own policy refuses what is not its own."""
    bad = site.parent / "bad.html"
    bad.write_text((site / "ablation.html").read_text().replace("</body>", f"{foreign}</body>"))
    browser.open(bad.as_uri())
    assert any("Content Security Policy" in line for line in browser.console)
    assert browser.evaluate("document.title") != "taken"


def test_the_first_screen_shows_tables_claims_and_masks(browser, site):
    browser.open((site / "index.html").as_uri(), 1300, 900)
    bottom = "Math.max(...[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect().bottom))"
    for part in ("p.scale", "#table1 table", "#table2 table", "details.claim.supported", "figure.strip"):
        assert 0 < browser.evaluate(bottom.format(part)) <= 900, part
    line = "[...document.querySelectorAll('details.claim.supported > summary')].map(e => e.offsetHeight)"
    assert len(browser.evaluate(line)) == 12 and max(browser.evaluate(line)) < 24, "one line each"
    # A press unfolds the reason, without a script.
    reason = "document.querySelector('details.claim > p + p')"
    assert not browser.evaluate(f"{reason}.checkVisibility()")
    browser.evaluate("document.querySelector('details.claim').open = true")
    assert (
        browser.evaluate(f"{reason}.checkVisibility()") and browser.evaluate(f"{reason}.innerText") == "it is above 0"
    )


def test_tables_sort_by_a_press_on_their_head_or_by_choice(browser, site):
    browser.open((site / "index.html").as_uri())
    column = "[...document.querySelectorAll('#ablation table')[0].tBodies[0].rows].map(row => row.cells[3].innerText)"
    head = "document.querySelectorAll('#ablation table')[0].tHead.rows[0].cells[3]"
    own = browser.evaluate(column)
    assert browser.evaluate(f"{head}.innerText") == "J&F" and own[2] == "not run"
    browser.evaluate(f"{head}.querySelector('button').click()")
    falling = browser.evaluate(column)
    numbers = [float(text.split()[0]) for text in falling[:-1]]  # what follows is the interval
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) > 1
    assert falling[-1] == "not run" and browser.evaluate(f"{head}.ariaSort") == "descending"
    browser.evaluate(f"{head}.querySelector('button').click()")
    assert browser.evaluate(column) == [*falling[:-1][::-1], "not run"]
    select = "document.querySelector('#ablation select')"
    browser.evaluate(f"{select}.value = ''; {select}.dispatchEvent(new Event('change'))")
    assert browser.evaluate(column) == own
    assert browser.console == []


def test_on_a_phone_tables_are_cards_and_the_choice_of_order_shows(browser, site):
    shown = "getComputedStyle(document.querySelector('#ablation {}')).display"
    browser.open((site / "index.html").as_uri(), 390)
    assert browser.evaluate(shown.format("thead")) == "none" and browser.evaluate(shown.format("label.sort")) == "block"
    browser.open((site / "index.html").as_uri(), 1280)
    assert browser.evaluate(shown.format("thead")) != "none" and browser.evaluate(shown.format("label.sort")) == "none"


def test_without_scripts_everything_is_there(browser, site):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open((site / "index.html").as_uri())
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.evaluate("document.querySelectorAll('th button').length") == 0
    assert browser.evaluate("document.querySelector('#ablation table').innerText.includes('Hodor-Soft-Coco')")
    assert browser.console == []


def test_it_prints(browser, site, tmp_path):
    browser.open((site / "index.html").as_uri(), media="print")
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.print(tmp_path / "index.pdf")
    content = (tmp_path / "index.pdf").read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") >= 3
