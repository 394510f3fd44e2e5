"""Documents, continuous integration and versions name what the repository holds."""

import re

import pytest
import yaml

from hodor import __version__


def _anchors(text: str) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere_and_every_page_is_linked(root):
    pages = [
        *root.glob("*.md"),
        *(root / "docs").glob("*.md"),
        root / "config/README.md",
        root / "benchmarks/README.md",
    ]
    texts = {page.resolve(): page.read_text(encoding="utf-8") for page in pages}
    linked, broken = set(), []
    for page, text in texts.items():
        for link in re.findall(r"\]\(([^()\s]+)\)", text):
            if link.startswith("http"):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            linked.add(target)
            if not target.exists() or anchor and anchor not in _anchors(texts[target]):
                broken.append(f"{page.relative_to(root)}: {link}")
    assert broken == []
    assert {page for page in texts if page.parent.name == "docs"} <= linked


@pytest.mark.parametrize("name", ["ci", "reproduce"])
def test_continuous_integration_calls_targets_of_the_makefile(root, name):
    jobs = yaml.safe_load((root / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
    called = {step["run"] for job in jobs.values() for step in job["steps"] if step.get("run", "").startswith("make")}
    targets = {
        f"make {target}" for target in re.findall(r"^([a-z-]+):.*##", (root / "Makefile").read_text(), re.MULTILINE)
    }
    assert called <= targets
    assert called == (
        {"make reproduce"} if name == "reproduce" else {"make lint", "make test", "make docs", "make dist"}
    )


def test_one_version_everywhere(root):
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == __version__
    released = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:2] == ["Unreleased", __version__]
